//! `numgen import`: goes on above the numbers of an older system.
//!
//! Invariants: every line is read and judged before anything is changed; the older numbers themselves are not stored, only the counters
//! are moved above them; moving them again changes nothing, so an import that broke off is simply run once more.
//!
//! Order: `lines` (a file), `numbers` (what its lines say), `plan` (which counter goes where), then this file, which asks the running
//! service, moves the counters and reports.

mod lines;
mod numbers;
mod plan;

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use percent_encoding::utf8_percent_encode;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json};

use self::{
    lines::Lines,
    numbers::{Numbers, Reader},
    plan::{Movement, Sequences, Step, Voids, plan},
};
use super::{
    CliError, ForRemote, SettingFlags, Terminal,
    remote::{Remote, SEGMENT},
    verify::prefix_key,
};
use crate::{
    auth::Scope,
    clock::{Clock, UnixMillis},
    config::{Flags, Source},
    counter::SequenceValue,
    json::Object,
    prefix_key::PrefixKey,
    rule::{Mode, RuleDraft},
    store::ADVANCE_LIMIT,
    template::{Origin, Template},
};

/// So many problems are shown; the rest is counted.
const SHOWN: u64 = 100;

/// How long a service that has enough to do is left alone, and how often.
const PAUSE: Duration = Duration::from_secs(1);
const PATIENCE: u32 = 60;

/// A snowflake as young as this might still be issued, where clocks differ.
const YOUNG: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(super) struct ImportArguments {
    #[command(flatten)]
    pub(super) options: ImportOptions,
    #[command(flatten)]
    pub(super) settings: SettingFlags<ForRemote>,
}

#[derive(Debug, Args)]
pub(super) struct ImportOptions {
    /// The prefix key, such as ORDERS; its rule must be registered, in the format of the numbers.
    #[arg(value_name = "PREFIX", value_parser = prefix_key)]
    prefix_key: PrefixKey,
    /// The numbers, one a line; `-` for standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Show what would happen; change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Report numbers that do not fit the format, and go on without them.
    #[arg(long)]
    skip_misfits: bool,
    /// Move strict counters that are in use too: each integer passed becomes a void row of the ledger, for ever.
    #[arg(long)]
    void_passed: bool,
}

pub(super) async fn run(
    flags: &Flags,
    options: ImportOptions,
    source: &impl Source,
    clock: &dyn Clock,
    terminal: &mut Terminal<'_>,
) -> Result<(), CliError> {
    let scopes = [Scope::PrefixesRead, Scope::SequencesWrite];
    let remote = Remote::connect(flags, source, &scopes, clock)?;
    let reader = reader(&remote, &options.prefix_key).await?;
    let path = format!("/sequences/{}", options.prefix_key);
    let sequences: Sequences = remote.get(&path).await?;
    let numbers = read(&reader, &options, terminal)?;
    if numbers.duplicates > 0 || (numbers.misfits > 0 && !options.skip_misfits) {
        let Numbers { misfits, duplicates, .. } = numbers;
        return Err(CliError::Misfits { misfits, duplicates });
    }
    if reader.rule.mode == Some(Mode::Snowflake) {
        return look_at_snowflakes(&remote, &options.prefix_key, &numbers, clock, terminal).await;
    }
    let voids = if options.void_passed { Voids::Allowed } else { Voids::Refused };
    let steps = plan(&reader.rule, &numbers.tallies, &sequences, voids)?;
    let mut moved = 0;
    for step in &steps {
        let to = match (step.movement, options.dry_run) {
            (Movement::Stays, _) => None,
            (Movement::Moves | Movement::Voids(_), true) => Some(step.tally.highest),
            (Movement::Moves | Movement::Voids(_), false) => advance(&remote, &path, step).await?,
        };
        moved += usize::from(to.is_some());
        writeln!(terminal.out, "{}", summary(&options.prefix_key, step, to))?;
    }
    let (count, periods) = (numbers.count(), steps.len());
    let done = if options.dry_run { "would be moved; nothing was changed" } else { "moved" };
    writeln!(terminal.err, "{count} numbers in {periods} counters; {moved} counters {done}")?;
    Ok(())
}

/// The rule in force, and what is needed to read its numbers.
async fn reader(remote: &Remote, key: &PrefixKey) -> Result<Reader, CliError> {
    let rule: Value = remote.get(&format!("/prefix-configs/{key}")).await?;
    let mut object = Object::parse(rule.to_string().as_bytes()).map_err(|_| remote.not_understood())?;
    let rule = RuleDraft::from_json(&mut object);
    object.finish().map_err(|_| remote.not_understood())?;
    let format = rule.format.as_deref().unwrap_or_default();
    let template = Template::parse(format, rule.seq_length).map_err(|_| remote.not_understood())?;
    let origin = origin(remote, format).await?;
    Ok(Reader { prefix: key.to_string(), template, origin, rule })
}

/// How wide `{datacenter}` and `{worker}` are depends on how the service lays out its IDs: asked only where the format has them.
async fn origin(remote: &Remote, format: &str) -> Result<Origin, CliError> {
    #[derive(Deserialize)]
    struct Preview {
        numbers: Vec<String>,
    }
    let mut widths = [1, 1];
    let format = format.to_ascii_lowercase();
    if format.contains("{datacenter") || format.contains("{worker") {
        let ask = json!({ "format": "{datacenter}.{worker}.{SEQ:4}" });
        let preview: Preview = remote.post("/formats/preview", &ask).await?;
        let number = preview.numbers.first().ok_or_else(|| remote.not_understood())?;
        for (width, part) in widths.iter_mut().zip(number.split('.')) {
            *width = u32::try_from(part.len()).unwrap_or(1).clamp(1, 9);
        }
    }
    let [max_datacenter, max_worker] = widths.map(|width| 10_u32.pow(width) - 1);
    Ok(Origin { datacenter: 0, worker: 0, max_datacenter, max_worker })
}

/// Reads every line, and shows what is wrong with some.
fn read(reader: &Reader, options: &ImportOptions, terminal: &mut Terminal<'_>) -> Result<Numbers, CliError> {
    let unreadable = |source| CliError::Unreadable { path: options.file.clone(), source };
    let input: Box<dyn BufRead> = if options.file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(&options.file).map_err(unreadable)?))
    };
    let (mut lines, mut numbers, mut problems) = (Lines::new(input), Numbers::default(), 0);
    while let Some((number, line)) = lines.next().map_err(unreadable)? {
        if let Err(problem) = numbers.take(reader, number, line) {
            problems += 1;
            if problems <= SHOWN {
                writeln!(terminal.err, "{}, {problem}", options.file.display())?;
            }
        }
    }
    if problems > SHOWN {
        writeln!(terminal.err, "and {} more", problems - SHOWN)?;
    }
    Ok(numbers)
}

/// Snowflakes have no counter, and need none: a worker issues IDs of the present and the future. Numbers of the past never come
/// back, so there is nothing to do; any other would.
async fn look_at_snowflakes(
    remote: &Remote,
    key: &PrefixKey,
    numbers: &Numbers,
    clock: &dyn Clock,
    terminal: &mut Terminal<'_>,
) -> Result<(), CliError> {
    // The time stands in the highest bits.
    let Some((highest, text)) = &numbers.latest else {
        writeln!(terminal.err, "no numbers")?;
        return Ok(());
    };
    let highest = *highest;
    let issued_at = issued_at(remote, key, text).await?;
    let limit = UnixMillis(clock.now().0.saturating_sub(i64::try_from(YOUNG.as_millis()).unwrap_or(0)));
    match issued_at {
        Some(at) if at < limit => {
            let (count, at) = (numbers.count(), at.to_rfc3339());
            writeln!(
                terminal.err,
                "{count} snowflakes, the latest of {at}: all in the past, which never comes back; nothing to move"
            )?;
            Ok(())
        }
        Some(at) => Err(CliError::FutureSnowflake { highest, at: at.to_rfc3339() }),
        None => Err(CliError::NoSnowflake { highest }),
    }
}

/// When a snowflake says that it was issued; `None` where it says nothing.
async fn issued_at(remote: &Remote, key: &PrefixKey, number: &str) -> Result<Option<UnixMillis>, CliError> {
    #[derive(Deserialize)]
    struct Decoded {
        issued_at: Option<String>,
    }
    let number = utf8_percent_encode(number, SEGMENT);
    let decoded: Decoded = remote.get(&format!("/numbers/decode?prefixKey={key}&number={number}")).await?;
    let at = decoded.issued_at.and_then(|text| chrono::DateTime::parse_from_rfc3339(&text).ok());
    Ok(at.map(|at| UnixMillis(at.timestamp_millis())))
}

/// Moves one counter; `None`: it stands higher by now.
async fn advance(remote: &Remote, path: &str, step: &Step) -> Result<Option<SequenceValue>, CliError> {
    let highest = step.tally.highest;
    let mut stands = match (step.movement, step.from) {
        // The ledger takes so many rows at a time.
        (Movement::Voids(_), Some(from)) => from,
        (Movement::Stays | Movement::Moves | Movement::Voids(_), _) => {
            SequenceValue(highest.0.saturating_sub(ADVANCE_LIMIT))
        }
    };
    while stands < highest {
        stands = SequenceValue(stands.0.saturating_add(ADVANCE_LIMIT)).min(highest);
        let mut body = json!({ "to": stands.to_string() });
        if !step.period.as_str().is_empty() {
            body["period"] = step.period.as_str().into();
        }
        match patiently(remote, &format!("{path}/advance"), &body).await {
            Ok(()) => {}
            // Somebody was faster, or the counter begins higher than its rule says.
            Err(error) if error.has_code("BelowHighWater") => {
                if stands == highest {
                    return Ok(None);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Some(highest))
}

/// Asks again where the service says that it was asked too much.
async fn patiently(remote: &Remote, path: &str, body: &Value) -> Result<(), CliError> {
    for _ in 0..PATIENCE {
        match remote.post::<IgnoredAny>(path, body).await {
            Err(error) if error.has_code("RateLimited") || error.has_code("Overloaded") => {
                tokio::time::sleep(PAUSE).await;
            }
            outcome => return outcome.map(drop),
        }
    }
    remote.post::<IgnoredAny>(path, body).await.map(drop)
}

/// `ORDERS:2026  1234 numbers, highest 1300  counter 17 -> 1300`
fn summary(key: &PrefixKey, step: &Step, to: Option<SequenceValue>) -> String {
    let Step { period, tally, from, movement } = step;
    let counter = crate::counter::Counter { key: key.clone(), period: period.clone() };
    let from = from.map_or_else(|| "not begun".to_owned(), |from| from.to_string());
    let moved = match (to, movement) {
        (None, _) => format!("{from}, stays"),
        (Some(to), Movement::Voids(passed)) => format!("{from} -> {to}, {passed} void"),
        (Some(to), Movement::Stays | Movement::Moves) => format!("{from} -> {to}"),
    };
    format!("{counter}\t{} numbers, highest {}\tcounter {moved}", tally.count, tally.highest)
}
