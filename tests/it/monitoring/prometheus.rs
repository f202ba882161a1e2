//! A real Prometheus for a test: scrapes servers once a second, evaluates the rules of the repository, and is gone when the test ends.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use numgen::clock::UnixMillis;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tempfile::TempDir;

use super::path;
use crate::harness::{Connection, Process, Stopwatch, free_address};

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Prometheus {
    home: TempDir,
    address: SocketAddr,
    _process: Process,
}

/// A program of Debian's package: the one that `tests/stages/tools.sh prometheus` unpacked, or that of the system.
pub(super) fn program(name: &str) -> PathBuf {
    let unpacked = path("target/tools/bin").join(name);
    if unpacked.exists() { unpacked } else { name.into() }
}

impl Prometheus {
    /// Starts one that scrapes these admin listeners.
    #[track_caller]
    pub(super) fn start(targets: &[SocketAddr]) -> Self {
        let home = tempfile::Builder::new().prefix("numgen-prometheus-").tempdir().expect("a directory");
        let targets: Vec<String> = targets.iter().map(|target| format!("\"{target}\"")).collect();
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
             rule_files: [{}, {}]\n\
             scrape_configs:\n  - job_name: numgen\n    static_configs: [{{targets: [{}]}}]\n",
            path("prometheus/rules.yaml").display(),
            path("prometheus/alerts.yaml").display(),
            targets.join(", "),
        );
        let file = home.path().join("prometheus.yaml");
        fs::write(&file, config).expect("a configuration");
        let address = free_address();
        let log = fs::File::create(home.path().join("log")).expect("a log");
        let process = Process::spawn(
            Command::new(program("prometheus"))
                .arg(format!("--config.file={}", file.display()))
                .arg(format!("--storage.tsdb.path={}", home.path().join("data").display()))
                .arg(format!("--web.listen-address={address}"))
                .arg("--log.level=warn")
                .current_dir(home.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log),
        );
        let prometheus = Self { home, address, _process: process };
        Stopwatch::wait_until(PATIENCE, "Prometheus is ready", || {
            let asked = Connection::open(address).and_then(|mut one| one.send("GET", "/-/ready", &[], None));
            asked.is_ok_and(|answer| answer.status == 200)
        });
        prometheus
    }

    /// The data of an answer of its API.
    #[track_caller]
    pub(super) fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let query: Vec<String> =
            parameters.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
        let target = format!("/api/v1/{path}?{}", query.join("&"));
        let mut connection = Connection::open(self.address).expect("Prometheus is there");
        let answer = connection.send("GET", &target, &[], None).expect("an answer").json();
        let log = fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
        assert_eq!(answer["status"], "success", "{path} {parameters:?}: {answer}\n{log}");
        answer["data"].clone()
    }

    /// The series that a query had between two moments, once a second; those without a number left out.
    #[track_caller]
    pub(super) fn range(&self, query: &str, from: UnixMillis, to: UnixMillis) -> Vec<Value> {
        let [start, end] = [from, to].map(|at| (at.0 / 1_000).to_string());
        let parameters = [("query", query), ("start", start.as_str()), ("end", end.as_str()), ("step", "1")];
        let answer = self.ask("query_range", &parameters);
        let series = answer["result"].as_array().cloned().unwrap_or_default();
        series.into_iter().filter(has_a_number).collect()
    }

    /// The values of a label, as Grafana's `label_values` has them.
    #[track_caller]
    pub(super) fn label_values(&self, series: &str, label: &str) -> Vec<String> {
        let answer = self.ask(&format!("label/{label}/values"), &[("match[]", series)]);
        let values = answer.as_array().cloned().unwrap_or_default();
        values.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
    }
}

fn has_a_number(series: &Value) -> bool {
    let samples = series["values"].as_array().map(Vec::as_slice).unwrap_or_default();
    samples.iter().filter_map(|sample| sample[1].as_str()?.parse::<f64>().ok()).any(|value| value.is_finite())
}
