//! What the kernel knows about this process, as Prometheus text (names of the Prometheus client libraries' convention).

use std::{fmt::Write, fs, path::Path};

use super::catalog::{self, Family};

/// Clock ticks per second in `/proc/<pid>/stat`: Linux shows user space 100 on every architecture it supports (proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;

/// Fields of `/proc/<pid>/stat` behind the command's closing bracket, counted from 0 (proc(5): utime is field 14).
const USER_TICKS: usize = 11;
const SYSTEM_TICKS: usize = 12;
const START_TICKS: usize = 19;
const VIRTUAL_BYTES: usize = 20;

/// Appends the metrics of the process; those that cannot be read, as on other systems than Linux, are left out.
pub(super) fn render(out: &mut String) {
    render_from(Path::new("/proc"), out);
}

fn render_from(proc: &Path, out: &mut String) {
    let text = |name: &str| fs::read_to_string(proc.join(name)).unwrap_or_default();
    let stat = text("self/stat");
    // The command may hold blanks and brackets: the numbers begin behind the last one.
    let numbers: Vec<f64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().map(|word| word.parse().unwrap_or(0.0)).collect())
        .unwrap_or_default();
    let number = |index: usize| numbers.get(index).copied();
    let cpu =
        number(USER_TICKS).zip(number(SYSTEM_TICKS)).map(|(user, system)| (user + system) / TICKS_PER_SECOND);
    let boot = labelled(&text("stat"), "btime");
    let start = boot.zip(number(START_TICKS)).map(|(boot, ticks)| boot + ticks / TICKS_PER_SECOND);
    let resident = labelled(&text("self/status"), "VmRSS:").map(|kibibytes| kibibytes * 1024.0);
    let open = fs::read_dir(proc.join("self/fd")).ok().and_then(|list| u32::try_from(list.count()).ok());
    let most = text("self/limits")
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok());

    let mut metric = |family: Family, value: Option<f64>| {
        if let Some(value) = value {
            let (Family { name, help, .. }, kind) = (&family, family.kind.as_str());
            let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n\n");
        }
    };
    metric(catalog::PROCESS_CPU, cpu);
    metric(catalog::PROCESS_RESIDENT, resident);
    metric(catalog::PROCESS_VIRTUAL, number(VIRTUAL_BYTES));
    metric(catalog::PROCESS_OPEN_FDS, open.map(f64::from));
    metric(catalog::PROCESS_MAX_FDS, most);
    metric(catalog::PROCESS_START, start);
}

/// The number behind `label` at the beginning of a line.
fn labelled(text: &str, label: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(label))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_a_known_process() {
        let proc = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(proc.path().join(name), text).unwrap();
        fs::create_dir_all(proc.path().join("self/fd")).unwrap();
        put("self/fd/0", "");
        put("self/fd/1", "");
        put("stat", "cpu 1 2\nbtime 1000\n");
        put("self/stat", "7 (a (b) c) S 1 1 1 0 -1 0 1 1 1 1 250 50 0 0 20 0 1 0 500 4096 25 1\n");
        put("self/status", "Name:\ta\nVmRSS:\t      20 kB\n");
        put("self/limits", "Limit  Soft  Hard  Units\nMax open files            1024   4096   files\n");
        let mut out = String::new();
        render_from(proc.path(), &mut out);
        for line in [
            "process_cpu_seconds_total 3\n",
            "process_resident_memory_bytes 20480\n",
            "process_virtual_memory_bytes 4096\n",
            "process_open_fds 2\n",
            "process_max_fds 1024\n",
            "process_start_time_seconds 1005\n",
            "# TYPE process_cpu_seconds_total counter\n",
        ] {
            assert!(out.contains(line), "{line} in\n{out}");
        }
    }

    #[test]
    fn nothing_is_claimed_where_nothing_is_known() {
        let mut out = String::new();
        render_from(Path::new("/nonexistent"), &mut out);
        assert_eq!(out, "");
    }
}
