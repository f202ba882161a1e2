//! Redis: there, fit, and how much it forgets?

use std::sync::Arc;

use super::report::Report;
use crate::{
    clock::Clock,
    config::Config,
    store::redis::client::{Durability, ServerReport, inspect},
    telemetry::fields::chain,
};

const SUBJECT: &str = "redis";

/// A clock further off than this deserves a look. Numbers stay unique whatever it says.
const NOTABLE_OFFSET_MS: u64 = 1_000;

pub(super) async fn look(config: &Config, clock: &Arc<dyn Clock>, report: &mut Report) {
    let Some(url) = &config.storage.redis_url else { return };
    match inspect(url, config.storage.redis_ca_file.as_deref(), &**clock).await {
        Ok(servers) => servers.iter().for_each(|server| one(server, report)),
        Err(error) => report.fail(SUBJECT, chain(&error)),
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
