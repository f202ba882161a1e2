//! `numgen verify`: is every ledger of a prefix key what was written?
//!
//! It reads the configured store itself and asks no service, so that it does not have to believe one. Nothing is changed, and a service
//! that is running goes on.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use clap::Args;

use super::{CliError, ForService, SettingFlags, Terminal};
use crate::{
    calendar::Period,
    clock::Clock,
    config::{Config, ConfigError, Flags, Mistake, Source, Values},
    counter::{Counter, SequenceValue},
    lifecycle::Lifecycle,
    prefix_key::PrefixKey,
    store::{
        Certificate, CounterStore, LedgerQuery, LedgerStore, StoreError, Stray, Verification,
        postgres::{self, PostgresStore, SchemaState},
        sqlite::LedgerFile,
    },
    telemetry::Metrics,
};

/// How long a write of the running service is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct VerifyArguments {
    #[command(flatten)]
    pub(super) options: VerifyOptions,
    #[command(flatten)]
    pub(super) settings: SettingFlags<ForService>,
}

#[derive(Debug, Args)]
pub(super) struct VerifyOptions {
    /// The prefix key, such as INVOICES.
    #[arg(value_name = "PREFIX", value_parser = prefix_key)]
    prefix_key: PrefixKey,
}

/// A prefix key, for clap.
pub(super) fn prefix_key(text: &str) -> Result<PrefixKey, String> {
    PrefixKey::parse(text).map_err(|error| error.to_string())
}

pub(super) async fn run(
    flags: &Flags,
    options: VerifyOptions,
    source: &impl Source,
    clock: Arc<dyn Clock>,
    terminal: &mut Terminal<'_>,
) -> Result<(), CliError> {
    let values = Values::gather(flags, source)?;
    let config = Config::read(&values)?;
    let key = options.prefix_key;
    let connections = Lifecycle::new();
    let ledgers = Ledgers::open(&config, &values, &clock, &connections).await?;
    let outcome = verify(&ledgers, &key, terminal).await;
    connections.drain();
    connections.finished(PATIENCE).await;
    outcome
}

/// Every period of a key, each with a line for what it is and one for each fault; then the rows that no period shows.
async fn verify(ledgers: &Ledgers, key: &PrefixKey, terminal: &mut Terminal<'_>) -> Result<(), CliError> {
    let (mut found, mut broken) = (0, 0);
    for period in ledgers.periods(key).await? {
        let counter = Counter { key: key.clone(), period };
        let verification = ledgers.verify(&counter).await?;
        let certificate = ledgers.certificate(&counter).await?;
        let Some(report) = Report::of(&counter, &verification, certificate.as_ref()) else { continue };
        found += 1;
        broken += usize::from(!report.faults.is_empty());
        report.write(&counter, terminal)?;
    }
    for stray in ledgers.strays(key).await? {
        found += 1;
        broken += 1;
        let whose = stray.key.as_ref().map_or("(unknown)", PrefixKey::as_str);
        writeln!(terminal.out, "{whose}\tBROKEN\t{stray}")?;
    }
    match (found, broken) {
        (0, _) => Err(CliError::NoLedger { key: key.clone(), place: ledgers.place() }),
        (_, 0) => Ok(()),
        (_, broken) => Err(CliError::Broken { key: key.clone(), broken, periods: found }),
    }
}

/// What is to be said of one period.
struct Report {
    summary: String,
    faults: Vec<String>,
}

impl Report {
    /// `None` where there is no ledger: the values of that period were drawn outside it.
    fn of(counter: &Counter, verification: &Verification, certificate: Option<&Certificate>) -> Option<Self> {
        let Verification { rows, events, faults } = verification;
        if *rows == 0 && *events == 0 && faults.is_empty() {
            return None;
        }
        let mut faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        let certified = match certificate {
            Some(certificate) => {
                for (from, to) in &certificate.holes {
                    faults.push(format!("the certificate has a hole from {from} to {to}"));
                }
                certified(certificate)
            }
            None => {
                faults.push(format!("{counter} has rows and no certificate"));
                String::new()
            }
        };
        Some(Self { summary: format!("{rows} rows, {events} events{certified}"), faults })
    }

    fn write(&self, counter: &Counter, terminal: &mut Terminal<'_>) -> Result<(), CliError> {
        let verdict = if self.faults.is_empty() { "intact" } else { "BROKEN" };
        writeln!(terminal.out, "{counter}\t{verdict}\t{}", self.summary)?;
        for fault in &self.faults {
            writeln!(terminal.out, "{counter}\t  {fault}")?;
        }
        Ok(())
    }
}

/// What the certificate says, shortly.
fn certified(certificate: &Certificate) -> String {
    let Certificate { first, last, count, issued, reserved, void, head, .. } = certificate;
    let value = |value: &Option<SequenceValue>| value.map(|value| value.to_string()).unwrap_or_default();
    format!(
        "; certificate: {} to {}, {count} numbers ({issued} issued, {reserved} reserved, {void} void), head {head}",
        value(first),
        value(last),
    )
}

/// Where the ledgers are.
enum Ledgers {
    File(LedgerFile),
    Postgres(PostgresStore),
}

impl Ledgers {
    async fn open(
        config: &Config,
        values: &Values,
        clock: &Arc<dyn Clock>,
        connections: &Lifecycle,
    ) -> Result<Self, CliError> {
        let storage = &config.storage;
        let Some(url) = &storage.database_url else {
            if storage.redis_url.is_some() {
                let problem =
                    "profile redis keeps no ledgers: set NUMGEN_DATABASE_URL to verify those in PostgreSQL";
                let origin = values.origin("NUMGEN_REDIS_URL");
                return Err(
                    ConfigError::from(Mistake::Unfitting { origin, problem: problem.to_owned() }).into()
                );
            }
            return Ok(Self::File(LedgerFile::open(&storage.data_dir, PATIENCE)?));
        };
        // Connecting would bring an older database, or one of somebody else, to the schema of this program.
        let ca_file = storage.database_ca_file.as_deref();
        let looked = postgres::inspect(url, ca_file, &config.worker, &**clock).await?;
        let SchemaState { found, known, .. } = looked.schema;
        if found < known {
            return Err(CliError::OldSchema { name: looked.name, found, known });
        }
        let settings = postgres::Settings {
            clock: Arc::clone(clock),
            timeout: storage.storage_timeout,
            locking: storage.strict_locking,
            pool_size: 2,
            node: None,
            ca_file: storage.database_ca_file.clone(),
        };
        let store = PostgresStore::connect(url, settings, &Metrics::new(), connections);
        Ok(Self::Postgres(store.map_err(postgres::InspectError::from)?))
    }

    fn place(&self) -> &'static str {
        match self {
            Self::File(_) => "the data directory",
            Self::Postgres(_) => "PostgreSQL",
        }
    }

    async fn periods(&self, key: &PrefixKey) -> Result<Vec<Period>, StoreError> {
        match self {
            Self::File(file) => file.periods(key),
            Self::Postgres(store) => periods(store, key).await,
        }
    }

    /// In the data directory a row carries its prefix key and period itself.
    async fn strays(&self, key: &PrefixKey) -> Result<Vec<Stray>, StoreError> {
        match self {
            Self::File(_) => Ok(Vec::new()),
            Self::Postgres(store) => store.strays(key).await,
        }
    }

    async fn verify(&self, counter: &Counter) -> Result<Verification, StoreError> {
        match self {
            Self::File(file) => file.verify(counter),
            Self::Postgres(store) => store.verify(counter.clone()).await,
        }
    }

    async fn certificate(&self, counter: &Counter) -> Result<Option<Certificate>, StoreError> {
        match self {
            Self::File(file) => file.certificate(counter),
            Self::Postgres(store) => store.certificate(counter.clone()).await,
        }
    }
}

/// The periods of every counter, and of every row: one row of each is read.
async fn periods(
    store: &(impl LedgerStore + CounterStore),
    key: &PrefixKey,
) -> Result<Vec<Period>, StoreError> {
    let counters = store.counters(key).await?;
    let mut periods: BTreeSet<Period> = counters.into_iter().map(|counter| counter.period).collect();
    let mut query = LedgerQuery { period: None, from: None, to: None, state: None, after: None, limit: 1 };
    while let Some(row) = store.rows(key.clone(), query.clone()).await?.pop() {
        query.after = Some((row.period.clone(), SequenceValue::MAX));
        periods.insert(row.period);
    }
    Ok(periods.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::{ManualClock, UnixMillis},
        rule::OnOutage,
        store::{Bounds, IssueRequest, LedgerFault, memory::MemoryStore},
    };

    fn counter(period: &str) -> Counter {
        let key = PrefixKey::parse("INV").expect("a prefix key");
        Counter { key, period: Period::new(period) }
    }

    #[tokio::test]
    async fn every_period_is_found() {
        let clock = Arc::new(ManualClock::at(UnixMillis(0)));
        let store = MemoryStore::new(clock, UnixMillis(0));
        let (base, floor, max) = (SequenceValue(0), SequenceValue(0), SequenceValue::MAX);
        let bounds = Bounds { base, floor, max, scheme: 0, on_outage: OnOutage::Fail };
        for period in ["2026-01", "2026-02", "2027-01"] {
            let one = IssueRequest {
                count: 2,
                claim: None,
                idempotency_key: None,
                subject: "a".into(),
                issued_at: UnixMillis(0),
                reserved_until: None,
            };
            let on = counter(period);
            let name = on.to_string();
            let render = Arc::new(move |_, value: SequenceValue| format!("{name}-{value}"));
            store.issue(on, bounds, vec![one], render).await.expect("issued");
        }
        let found = periods(&store, &counter("").key).await.expect("read");
        let found: Vec<&str> = found.iter().map(Period::as_str).collect();
        assert_eq!(found, ["2026-01", "2026-02", "2027-01"]);
    }

    #[test]
    fn a_fault_names_its_place_and_a_lost_ledger_is_one() {
        let mut verification = Verification::default();
        assert!(Report::of(&counter("2026"), &verification, None).is_none(), "no ledger");
        verification.faults.push(LedgerFault::Missing(SequenceValue(1), SequenceValue(7)));
        let report = Report::of(&counter("2026"), &verification, None).expect("a ledger that is gone");
        assert_eq!(report.faults[0], "no row for 1 to 7");
    }
}
