//! Redis: there, fit, and how much it forgets?

use std::sync::Arc;

use super::{Found, Pinned, database::Facts, report::Report};
use crate::{
    clock::Clock,
    config::Config,
    secret::Secret,
    store::redis::{
        Survey,
        client::{Durability, ServerReport, inspect},
        survey,
    },
    telemetry::fields::chain,
};

const SUBJECT: &str = "redis";
const RULES: &str = "rules";

/// A clock further off than this deserves a look. Numbers stay unique whatever it says.
const NOTABLE_OFFSET_MS: u64 = 1_000;

/// Looks at every server, and at what they hold.
pub(super) async fn look(
    url: &Secret<String>,
    config: &Config,
    local: &Facts,
    clock: &Arc<dyn Clock>,
    report: &mut Report,
) -> Found {
    let ca_file = config.storage.redis_ca_file.as_deref();
    let held = match inspect(url, ca_file, &**clock).await {
        Ok(servers) => {
            servers.iter().for_each(|server| one(server, report));
            survey(url, ca_file, &config.worker).await
        }
        Err(error) => Err(error),
    };
    match held {
        Ok(held) => {
            rules(&held, report);
            Found {
                pinned: Pinned::As(held.layout),
                holder: held.holder,
                name: held.name,
                ..Found::default()
            }
        }
        Err(error) => {
            report.fail(SUBJECT, chain(&error));
            copy("Redis", local, report);
            Found::default()
        }
    }
}

fn rules(held: &Survey, report: &mut Report) {
    let Survey { rules, refused, adopted, .. } = *held;
    report.ok(RULES, format!("{rules} in Redis (prefix_configs)"));
    if refused > 0 {
        report.note(
            RULES,
            format!("{refused} written directly and not adopted: refused, as /readyz of a service says, or yet to be looked at"),
        );
    } else if rules != adopted {
        report.note(
            RULES,
            format!("{adopted} of them adopted: a service takes in what was written directly within 5 s"),
        );
    }
}

/// With a store away, what a start would go by.
pub(super) fn copy(store: &str, local: &Facts, report: &mut Report) {
    match local.copy {
        Some((rules, saved_at)) => report.note(
            RULES,
            format!(
                "{store} is away; the local copy from {} has {rules}, which a start goes by until it is back",
                saved_at.to_rfc3339()
            ),
        ),
        None => report.note(
            RULES,
            format!("{store} is away, and there is no local copy: a start is not ready before it is there"),
        ),
    }
}

fn one(server: &ServerReport, report: &mut Report) {
    let ServerReport { address, version, role, replicas, round_trip, .. } = server;
    let replicas = match replicas {
        0 => "no replica".to_owned(),
        1 => "1 replica".to_owned(),
        more => format!("{more} replicas"),
    };
    report.ok(SUBJECT, format!("{address}: {version}, {role}, {replicas}, answers in {round_trip:.1?}"));
    match &server.refused {
        Some(reason) => report.fail(SUBJECT, reason.clone()),
        None => report.ok(SUBJECT, format!("{address}: maxmemory-policy {}", server.maxmemory_policy)),
    }
    durability(server, report);
    failover(server, report);
    let offset = server.clock_offset_ms.unsigned_abs();
    let side = if server.clock_offset_ms < 0 { "behind" } else { "ahead of" };
    let finding = format!("{address}: its clock is {offset} ms {side} this machine's");
    if offset > NOTABLE_OFFSET_MS { report.note(SUBJECT, finding) } else { report.ok(SUBJECT, finding) }
}

/// Numbers are not repeated by a Redis that forgets, but a counter then leaves a hole.
fn durability(server: &ServerReport, report: &mut Report) {
    let address = &server.address;
    match &server.durability {
        Durability::AppendOnly { fsync: Some(fsync) } if fsync == "always" => {
            report.ok(SUBJECT, format!("{address}: appendonly yes, appendfsync always: a restart forgets nothing"));
        }
        Durability::AppendOnly { fsync: Some(fsync) } => report.note(
            SUBJECT,
            format!(
                "{address}: appendonly yes, appendfsync {fsync}: a power cut forgets the last moments, and counters skip ahead \
                 then; CONFIG SET appendfsync always prevents it"
            ),
        ),
        Durability::AppendOnly { fsync: None } => {
            report.ok(SUBJECT, format!("{address}: appendonly yes; it does not tell appendfsync"));
        }
        Durability::Snapshots { save } => report.note(
            SUBJECT,
            format!(
                "{address}: snapshots only{}: a restart forgets what came after the last one, and counters skip ahead then; \
                 CONFIG SET appendonly yes prevents it",
                save.as_ref().map(|save| format!(" (save {save})")).unwrap_or_default()
            ),
        ),
        Durability::None => report.note(
            SUBJECT,
            format!(
                "{address}: no persistence: a restart forgets all, rules come back from the nodes, and counters skip ahead; \
                 CONFIG SET appendonly yes prevents it"
            ),
        ),
    }
}

fn failover(server: &ServerReport, report: &mut Report) {
    let address = &server.address;
    match (server.replicas, server.min_replicas_to_write) {
        (0, _) => {}
        (_, Some(0)) => report.note(
            SUBJECT,
            format!(
                "{address}: a master that is cut off from its replicas goes on taking writes, which a failover forgets; \
                 CONFIG SET min-replicas-to-write 1 and CONFIG SET min-replicas-max-lag 10 limit that"
            ),
        ),
        (_, Some(least)) => report.ok(SUBJECT, format!("{address}: min-replicas-to-write {least}")),
        (_, None) => report.note(SUBJECT, format!("{address}: it does not tell min-replicas-to-write; 1 is advised")),
    }
}
