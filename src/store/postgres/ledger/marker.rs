//! Whether this server has everything that it acknowledged of the ledgers, as the database knows it.
//!
//! Invariants:
//! - strict values are drawn only where `numgen_ledger_marker` names this server and its timeline, and nothing is known to be lacking;
//! - what any process remembers is compared before a promoted or recovered server is believed: it is, once every process that drew
//!   before has found its last sign of life and its last batches there. A process that says nothing counts as lacking something, unless each commit
//!   was on a standby before it was acknowledged and another process has found everything;
//! - tables that were loaded from a dump are never believed: only a person can say up to where numbers were issued;
//! - a person's word ([`resume`](super::resume)) ends no memory: who remembers more than the ledger reaches suspends it again.
//!
//! What a database has lost is the end of its log. So the last sign of life of a process, once a second, stands for all that was
//! acknowledged before it.

use sqlx::{PgConnection, Row};

use super::{
    super::{failure::Failure, values::Whole},
    witness::Testimony,
};
use crate::store::{StoreError, Suspension};

/// The schema step that brought the marker.
pub(in crate::store::postgres) const MARKED_SINCE: i32 = 6;

/// How long processes have to look whether anything is lacking.
pub(super) const SETTLING_MS: i64 = 10_000;

/// A process that said nothing for so long, while others did, has drawn nothing in that time (`witness::LEASE`).
pub(super) const LAPSED_MS: i64 = 60_000;

/// SQL that is true where strict values may be drawn.
macro_rules! open {
    () => {
        "EXISTS (SELECT FROM numgen_ledger_marker WHERE forgotten_of IS NULL AND timeline = numgen_ledger_timeline()
            AND home = numgen_ledger_home())"
    };
}

/// The time of the server. Not `clock_timestamp()`: what is written here is compared only within transactions.
macro_rules! now_ms {
    () => {
        "floor(extract(epoch FROM now()) * 1000)::bigint"
    };
}
pub(super) use {now_ms, open};

/// Whether a commit is on a standby too before it is acknowledged, as far as the settings say.
macro_rules! replicated {
    () => {
        "(current_setting('synchronous_standby_names') <> ''
            AND current_setting('synchronous_commit') IN ('on', 'remote_apply'))"
    };
}

/// A sign of life that was acknowledged, and the era in which it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Beat {
    pub(super) beat: i64,
    pub(super) era: i64,
}

/// What a process finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// It may draw.
    Open(Beat),
    /// It may not.
    Suspended(Suspension),
}

/// Fails where strict values must not be drawn.
pub(super) async fn require_open(connection: &mut PgConnection) -> Result<(), Failure> {
    let row = sqlx::query(concat!("SELECT ", open!(), " AS open")).fetch_one(connection).await?;
    if row.try_get("open")? {
        return Ok(());
    }
    // Why is found out where the process remembers.
    Err(StoreError::Suspended { why: Suspension::Settling }.into())
}

/// Where a connection leads: what of `numgen_ledger_home()` and `numgen_ledger_timeline()` stays the same as long as it lasts. A server that
/// takes writes begins no other timeline without ending its connections; another table may come, so it is not part of this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) timeline: String,
    /// Without the table at its end.
    pub(super) home: String,
}

/// Looks where a connection leads. Fails on a standby: one that is promoted later has no connection from before.
pub(super) async fn place(connection: &mut PgConnection) -> Result<Place, sqlx::Error> {
    const PLACE: &str = "SELECT numgen_ledger_timeline() AS timeline, concat_ws('/', system_identifier,
            (SELECT oid FROM pg_database WHERE datname = current_database())) AS home
        FROM pg_control_system()";
    let row = sqlx::query(PLACE).fetch_one(connection).await?;
    Ok(Place { timeline: row.try_get("timeline")?, home: row.try_get("home")? })
}

/// Fails where strict values must not be drawn by this process: the server may lack what it was told.
pub(super) async fn require_believed(
    connection: &mut PgConnection,
    process: &[u8; 16],
    last: Beat,
) -> Result<(), Failure> {
    const BELIEVED: &str = concat!(
        "SELECT EXISTS (SELECT FROM numgen_ledger_processes WHERE process = $1 AND beat >= $2)
            AND EXISTS (SELECT FROM numgen_ledger_marker WHERE era = $3) AND ",
        open!(),
        " AS believed"
    );
    let query = sqlx::query(BELIEVED).bind(&process[..]).bind(last.beat).bind(last.era);
    if query.fetch_one(connection).await?.try_get("believed")? {
        return Ok(());
    }
    Err(StoreError::Suspended { why: Suspension::Settling }.into())
}

/// Gives a sign of life where everything is as it was; `None`: something is not.
pub(super) async fn beat(
    connection: &mut PgConnection,
    testimony: &Testimony,
) -> Result<Option<Finding>, Failure> {
    const BEAT: &str = concat!(
        "UPDATE numgen_ledger_processes p SET beat = p.beat + 1, beaten_at_ms = ",
        now_ms!(),
        ", replicated = ",
        replicated!(),
        " FROM numgen_ledger_marker m WHERE p.process = $1 AND p.beat >= $2 AND m.era = $3 AND ",
        open!(),
        " RETURNING p.beat"
    );
    let Some(Beat { beat, era }) = testimony.beat else { return Ok(None) };
    let query = sqlx::query(BEAT).bind(&testimony.process[..]).bind(beat).bind(era);
    let row = query.fetch_optional(connection).await?;
    row.map(|row| Ok(Finding::Open(Beat { beat: row.try_get("beat")?, era }))).transpose()
}

/// The marker, locked, and the server as it is.
pub(super) struct Marker {
    home: String,
    timeline: String,
    era: i64,
    forgotten_of: Option<String>,
    checking: Option<String>,
    checking_since_ms: Option<i64>,
    here: String,
    now_timeline: String,
    now_ms: i64,
    in_use: bool,
}

impl Marker {
    /// Whether it is a matter of this server as it is, and of nothing that is lacking.
    pub(super) fn is_believed(&self) -> bool {
        self.home == self.here && self.timeline == self.now_timeline && self.forgotten_of.is_none()
    }

    /// Where nodes are heard: a copy of this is another place.
    pub(super) fn place(&self) -> String {
        format!("{}/{}", self.here, self.now_timeline)
    }
}

pub(super) async fn lock(connection: &mut PgConnection) -> Result<Marker, Failure> {
    const MISSING: &str =
        "INSERT INTO numgen_ledger_marker (home, timeline) VALUES ('', '') ON CONFLICT DO NOTHING";
    const LOCK: &str = concat!(
        "SELECT home, timeline, era, forgotten_of, checking, checking_since_ms, numgen_ledger_home() AS here,
            numgen_ledger_timeline() AS now_timeline, ",
        now_ms!(),
        " AS now_ms, EXISTS (SELECT FROM numgen_ledger_counters WHERE last IS NOT NULL) AS in_use
        FROM numgen_ledger_marker FOR UPDATE"
    );
    sqlx::query(MISSING).execute(&mut *connection).await?;
    let row = sqlx::query(LOCK).fetch_one(connection).await?;
    Ok(Marker {
        home: row.try_get("home")?,
        timeline: row.try_get("timeline")?,
        era: row.try_get("era")?,
        forgotten_of: row.try_get("forgotten_of")?,
        checking: row.try_get("checking")?,
        checking_since_ms: row.try_get("checking_since_ms")?,
        here: row.try_get("here")?,
        now_timeline: row.try_get("now_timeline")?,
        now_ms: row.try_get("now_ms")?,
        in_use: row.try_get("in_use")?,
    })
}

/// Looks closely: compares what this process remembers, says what it finds, and judges.
pub(super) async fn examine(
    connection: &mut PgConnection,
    testimony: &Testimony,
) -> Result<Finding, Failure> {
    const HEARD: &str = "INSERT INTO numgen_ledger_heard AS known (node, place) VALUES ($1, $2)
        ON CONFLICT (node) DO UPDATE SET place = excluded.place WHERE known.place <> excluded.place";
    let marker = lock(connection).await?;
    let finding = judge(connection, testimony, &marker).await?;
    if matches!(finding, Finding::Suspended(_)) {
        let query = sqlx::query(HEARD).bind(&testimony.node).bind(marker.place());
        query.execute(connection).await?;
    }
    Ok(finding)
}

async fn judge(
    connection: &mut PgConnection,
    testimony: &Testimony,
    marker: &Marker,
) -> Result<Finding, Failure> {
    let row = sqlx::query("SELECT beat FROM numgen_ledger_processes WHERE process = $1")
        .bind(&testimony.process[..])
        .fetch_optional(&mut *connection)
        .await?;
    let beat: Option<i64> = row.map(|row| row.try_get("beat")).transpose()?;
    if let Some(last) = testimony.beat {
        // An era that is over was settled by a person, who knew of this process or gave it up. One that lies ahead of the marker's
        // was forgotten.
        let lacks = if last.era < marker.era {
            note_beyond(connection, testimony).await?
        } else {
            let lost = note_lost(connection, testimony).await?;
            lost || last.era > marker.era || testimony.is_ahead_of(beat)
        };
        if lacks {
            forget(connection, &testimony.node).await?;
            return Ok(Finding::Suspended(Suspension::Forgotten { node: testimony.node.clone() }));
        }
    }
    if let Some(node) = &marker.forgotten_of {
        return Ok(Finding::Suspended(Suspension::Forgotten { node: node.clone() }));
    }
    if marker.home != marker.here {
        if marker.in_use {
            return Ok(Finding::Suspended(Suspension::Restored));
        }
        return begin(connection, testimony).await;
    }
    if marker.timeline != marker.now_timeline {
        if let Some(why) = compare(connection, testimony, marker).await? {
            return Ok(Finding::Suspended(why));
        }
        sqlx::query(
            "UPDATE numgen_ledger_marker SET timeline = $1, checking = NULL, checking_since_ms = NULL",
        )
        .bind(&marker.now_timeline)
        .execute(&mut *connection)
        .await?;
        sqlx::query(HEAR_ANEW).execute(&mut *connection).await?;
    }
    register(connection, testimony, marker.era).await
}

/// Writes down what the ledger lacks of what this process was told; answers whether there is anything.
async fn note_lost(connection: &mut PgConnection, testimony: &Testimony) -> Result<bool, Failure> {
    const LOST: &str =
        "INSERT INTO numgen_ledger_lost AS known (prefix_key, period, last, node)
        SELECT s.prefix_key, s.period, s.last, $5 FROM unnest($1::text[], $2::text[], $3::numeric[], $4::text[])
            AS s (prefix_key, period, last, hash)
        WHERE NOT EXISTS (
            SELECT FROM numgen_ledger_keys k JOIN numgen_ledger_counters c ON c.prefix = k.id JOIN numgen_ledger l ON l.counter = c.id
            WHERE k.prefix_key = s.prefix_key AND c.period = s.period AND l.sequence = s.last AND l.hash = decode(s.hash, 'hex'))
        ON CONFLICT (prefix_key, period) DO UPDATE SET last = excluded.last, node = excluded.node WHERE known.last < excluded.last
        RETURNING 1";
    const KNOWN: &str = "SELECT FROM numgen_ledger_lost WHERE node = $1 LIMIT 1";
    let seen = || testimony.seen.iter();
    let told = sqlx::query(LOST)
        .bind(seen().map(|(counter, _)| counter.key.as_str()).collect::<Vec<_>>())
        .bind(seen().map(|(counter, _)| counter.period.as_str()).collect::<Vec<_>>())
        .bind(seen().map(|(_, seen)| Whole::from(seen.last)).collect::<Vec<_>>())
        .bind(seen().map(|(_, seen)| seen.hash.as_str()).collect::<Vec<_>>())
        .bind(&testimony.node)
        .fetch_all(&mut *connection)
        .await?;
    if !told.is_empty() {
        return Ok(true);
    }
    Ok(sqlx::query(KNOWN).bind(&testimony.node).fetch_optional(connection).await?.is_some())
}

/// Writes down where the ledger ends below what this process was told in an era that is over; answers whether it does.
async fn note_beyond(connection: &mut PgConnection, testimony: &Testimony) -> Result<bool, Failure> {
    const BEYOND: &str = "INSERT INTO numgen_ledger_lost AS known (prefix_key, period, last, node)
        SELECT s.prefix_key, s.period, s.last, $4 FROM unnest($1::text[], $2::text[], $3::numeric[])
            AS s (prefix_key, period, last)
        WHERE NOT EXISTS (
            SELECT FROM numgen_ledger_keys k JOIN numgen_ledger_counters c ON c.prefix = k.id
            WHERE k.prefix_key = s.prefix_key AND c.period = s.period AND c.last >= s.last)
        ON CONFLICT (prefix_key, period) DO UPDATE SET last = greatest(known.last, excluded.last),
            node = CASE WHEN known.last < excluded.last THEN excluded.node ELSE known.node END
        RETURNING 1";
    let seen = || testimony.seen.iter();
    let told = sqlx::query(BEYOND)
        .bind(seen().map(|(counter, _)| counter.key.as_str()).collect::<Vec<_>>())
        .bind(seen().map(|(counter, _)| counter.period.as_str()).collect::<Vec<_>>())
        .bind(seen().map(|(_, seen)| Whole::from(seen.last)).collect::<Vec<_>>())
        .bind(&testimony.node)
        .fetch_all(connection)
        .await?;
    Ok(!told.is_empty())
}

async fn forget(connection: &mut PgConnection, node: &str) -> Result<(), Failure> {
    const FORGET: &str = "UPDATE numgen_ledger_marker SET forgotten_of = $1 WHERE forgotten_of IS NULL";
    let is_news = sqlx::query(FORGET).bind(node).execute(&mut *connection).await?.rows_affected() > 0;
    if is_news {
        sqlx::query(HEAR_ANEW).execute(connection).await?;
    }
    Ok(())
}

/// Who was heard of another incident was not heard of this one.
const HEAR_ANEW: &str = "DELETE FROM numgen_ledger_heard";

/// Looks whether a promoted or recovered server has what every process remembers; `None`: it has.
async fn compare(
    connection: &mut PgConnection,
    testimony: &Testimony,
    marker: &Marker,
) -> Result<Option<Suspension>, Failure> {
    const ATTEST: &str = "UPDATE numgen_ledger_processes SET attested = $2 WHERE process = $1";
    const CHECKING: &str = "UPDATE numgen_ledger_marker SET checking = $1, checking_since_ms = $2";
    const SILENT: &str = "SELECT node, replicated FROM numgen_ledger_processes
        WHERE attested IS DISTINCT FROM $1
            AND beaten_at_ms >= (SELECT max(beaten_at_ms) - $2 FROM numgen_ledger_processes) ORDER BY node";
    const ATTESTED: &str =
        "SELECT EXISTS (SELECT FROM numgen_ledger_processes WHERE attested = $1) AS attested";
    let timeline = &marker.now_timeline;
    // One without a sign of life from before has nothing to say.
    if testimony.beat.is_some() {
        let query = sqlx::query(ATTEST).bind(&testimony.process[..]).bind(timeline);
        query.execute(&mut *connection).await?;
    }
    let since = marker.checking_since_ms.filter(|_| marker.checking.as_ref() == Some(timeline));
    let age_ms = since.map_or(0, |since| marker.now_ms - since);
    // A clock that was set back begins again.
    if since.is_none() || age_ms < 0 {
        sqlx::query(CHECKING).bind(timeline).bind(marker.now_ms).execute(&mut *connection).await?;
    }
    let row = sqlx::query(ATTESTED).bind(timeline).fetch_one(&mut *connection).await?;
    let attested: bool = row.try_get("attested")?;
    let rows = sqlx::query(SILENT).bind(timeline).bind(LAPSED_MS).fetch_all(connection).await?;
    let silent = rows.iter().map(|row| Ok((row.try_get("node")?, row.try_get("replicated")?)));
    let silent = silent.collect::<Result<Vec<(String, bool)>, sqlx::Error>>()?;
    if attested && silent.is_empty() {
        return Ok(None);
    }
    if age_ms < SETTLING_MS {
        return Ok(Some(Suspension::Settling));
    }
    let covered = (attested && silent.iter().all(|(_, replicated)| *replicated)) || !marker.in_use;
    let mut nodes: Vec<String> = silent.into_iter().map(|(node, _)| node).collect();
    nodes.dedup();
    Ok((!covered).then_some(Suspension::Silent { nodes }))
}

/// Gives a sign of life, the first one too.
async fn register(
    connection: &mut PgConnection,
    testimony: &Testimony,
    era: i64,
) -> Result<Finding, Failure> {
    const REGISTER: &str = concat!(
        "INSERT INTO numgen_ledger_processes AS p (process, node, beat, beaten_at_ms, replicated) VALUES ($1, $2, $3, ",
        now_ms!(),
        ", ",
        replicated!(),
        ") ON CONFLICT (process) DO UPDATE SET beat = greatest(p.beat, excluded.beat) + 1, beaten_at_ms = excluded.beaten_at_ms,
            replicated = excluded.replicated
        RETURNING beat"
    );
    // Of processes that died without a word. So long ago that no clock is wrong by it.
    const FORGET: &str =
        concat!("DELETE FROM numgen_ledger_processes WHERE beaten_at_ms < ", now_ms!(), " - 2592000000");
    sqlx::query(FORGET).execute(&mut *connection).await?;
    let query = sqlx::query(REGISTER).bind(&testimony.process[..]).bind(&testimony.node);
    let row = query.bind(testimony.beat.map_or(1, |last| last.beat + 1)).fetch_one(connection).await?;
    Ok(Finding::Open(Beat { beat: row.try_get("beat")?, era }))
}

/// Takes this server for the one.
async fn begin(connection: &mut PgConnection, testimony: &Testimony) -> Result<Finding, Failure> {
    let era = adopt(connection).await?;
    register(connection, testimony, era).await
}

/// Names this server in the marker, which is locked, and begins an era.
pub(super) async fn adopt(connection: &mut PgConnection) -> Result<i64, Failure> {
    const ADOPT: &str = concat!(
        "UPDATE numgen_ledger_marker SET home = numgen_ledger_home(), timeline = numgen_ledger_timeline(), forgotten_of = NULL,
            checking = NULL, checking_since_ms = NULL, era = greatest(era + 1, ",
        now_ms!(),
        ") RETURNING era"
    );
    for sql in ["DELETE FROM numgen_ledger_processes", "DELETE FROM numgen_ledger_lost", HEAR_ANEW] {
        sqlx::query(sql).execute(&mut *connection).await?;
    }
    Ok(sqlx::query(ADOPT).fetch_one(connection).await?.try_get("era")?)
}
