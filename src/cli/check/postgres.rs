//! PostgreSQL: there, fit, and of which schema?

use std::sync::Arc;

use super::{
    super::resume::{said, waited_for},
    Found, Pinned,
    database::Facts,
    redis::copy,
    report::Report,
};
use crate::{
    clock::Clock,
    config::Config,
    secret::Secret,
    store::{
        Suspension,
        postgres::{Held, Inspection, LedgerReport, Role, inspect},
    },
    telemetry::fields::chain,
};

const SUBJECT: &str = "postgres";

/// A clock further off than this deserves a look. Numbers stay unique whatever it says.
const NOTABLE_OFFSET_MS: u64 = 1_000;

/// Looks at the database, and at what it holds.
pub(super) async fn look(
    url: &Secret<String>,
    config: &Config,
    local: &Facts,
    clock: &Arc<dyn Clock>,
    report: &mut Report,
) -> Found {
    let ca_file = config.storage.database_ca_file.as_deref();
    match inspect(url, ca_file, &config.worker, &**clock).await {
        Ok(found) => {
            one(&found, report);
            let Held { layout, holder, home, .. } = found.held;
            Found { pinned: Pinned::As(layout), holder, home, name: None }
        }
        Err(error) => {
            report.fail(SUBJECT, chain(&error));
            copy("PostgreSQL", local, report);
            Found::default()
        }
    }
}

fn one(found: &Inspection, report: &mut Report) {
    let Inspection { name, server, round_trip, .. } = found;
    let role = match server.role {
        Role::Primary => "primary",
        Role::ReadOnly => "read only",
    };
    report.ok(SUBJECT, format!("{name}: version {}, {role}, answers in {round_trip:.1?}", server.version));
    durability(found, report);
    schema(found, report);
    suspension(found, report);
    let offset = found.clock_offset_ms.unsigned_abs();
    let side = if found.clock_offset_ms < 0 { "behind" } else { "ahead of" };
    let finding = format!("{name}: its clock is {offset} ms {side} this machine's");
    if offset > NOTABLE_OFFSET_MS { report.note(SUBJECT, finding) } else { report.ok(SUBJECT, finding) }
}

fn durability(found: &Inspection, report: &mut Report) {
    let Inspection { name, server, .. } = found;
    match server.judge() {
        Err(unfit) => report.fail(SUBJECT, format!("{name}: {unfit}")),
        Ok(()) => report.ok(
            SUBJECT,
            format!(
                "{name}: fsync {}, synchronous_commit {}, wal_level {}",
                server.fsync, server.synchronous_commit, server.wal_level
            ),
        ),
    }
    if let Some(doubt) = server.doubt() {
        report.note(SUBJECT, format!("{name}: {doubt}"));
    }
    if server.full_page_writes == "off" {
        let finding = "full_page_writes is off: a power cut may damage the database, unless the file system writes pages whole";
        report.note(SUBJECT, format!("{name}: {finding}"));
    }
    match server.synchronous_standby_names.as_str() {
        "" => report.note(
            SUBJECT,
            format!(
                "{name}: synchronous_standby_names is empty: should a standby take over, it may lack the last numbers; without a \
                 standby that is as it should be"
            ),
        ),
        names => report.ok(SUBJECT, format!("{name}: synchronous_standby_names {names}")),
    }
}

fn suspension(found: &Inspection, report: &mut Report) {
    let Inspection { name, ledgers: LedgerReport { suspension, lost, unheard }, .. } = found;
    match suspension {
        None => {}
        Some(why @ Suspension::Settling) => report.note(SUBJECT, format!("{name}: {why}")),
        Some(why) => report.fail(SUBJECT, format!("{name}: {why}")),
    }
    for node in unheard {
        report.note(SUBJECT, format!("{name}: {}", waited_for(node)));
    }
    for lost in lost {
        report.fail(SUBJECT, format!("{name}: {}", said(lost)));
    }
}

fn schema(found: &Inspection, report: &mut Report) {
    let Inspection { name, schema, .. } = found;
    if let Some(step) = schema.changed {
        let finding =
            format!("{name}: schema step {step} was taken by a program that was never released, or edited");
        return report.fail(SUBJECT, finding);
    }
    let finding = match (schema.found, schema.known) {
        (0, _) => "the schema is made at the first start".to_owned(),
        (found, known) if found < known => {
            format!("schema {found}; the steps up to {known} are taken at the next start")
        }
        (found, known) if found > known => {
            format!("schema {found}, of a later version of numgen, which is tolerated")
        }
        (found, _) => format!("schema {found}"),
    };
    report.ok(SUBJECT, format!("{name}: {finding}"));
    report.ok("rules", format!("{} in PostgreSQL", found.held.rules));
}
