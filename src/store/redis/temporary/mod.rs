//! Temporary numbers of all nodes: a hash of rows, and for each status the numbers in the order of their texts.
//!
//! What becomes of a row is decided in [`TemporaryRow`]; the scripts only compare revisions. A value of the hash is the revision, a
//! space and the row as JSON. All keys share one slot. The instance is the generation of the marker that guards it; while that settles,
//! no row is shown to be judged, and none is replaced.

use redis::cmd;

use super::{
    RedisStore, STORE,
    client::{Arg, Script},
};
use crate::store::{
    Instance, RowSwap, Status, StoreError, StoreFuture, TemporaryNumber, TemporaryQuery, TemporaryRow,
    TemporaryStore,
};

const ROWS: &str = "numgen:temporary:{temporary}:rows";
/// Every number, whatever its status.
const ALL: &str = "numgen:temporary:{temporary}:all";

static UPLOAD: Script =
    Script::new("upload_temporary", concat!(include_str!("../marker.lua"), include_str!("upload.lua")));
static FIND: Script = Script::new(
    "find_temporary",
    concat!(include_str!("../marker.lua"), include_str!("settled.lua"), include_str!("find.lua")),
);
static SWAP: Script = Script::new(
    "swap_temporary",
    concat!(include_str!("../marker.lua"), include_str!("settled.lua"), include_str!("swap.lua")),
);
static LIST: Script = Script::new("list_temporary", include_str!("list.lua"));

fn index_of(status: Option<Status>) -> &'static str {
    match status {
        None => ALL,
        Some(Status::Open) => "numgen:temporary:{temporary}:open",
        Some(Status::Assigned) => "numgen:temporary:{temporary}:assigned",
        Some(Status::Void) => "numgen:temporary:{temporary}:void",
    }
}

/// The keys of [`Status::ALL`], in that order.
fn indices() -> impl Iterator<Item = String> {
    Status::ALL.into_iter().map(|status| index_of(Some(status)).to_owned())
}

fn damaged() -> StoreError {
    StoreError::Corrupt { store: STORE, what: "a temporary number that cannot be read".to_owned() }
}

/// A new random generation, for a marker that is not blessed.
fn generation(operation: &'static str) -> Result<String, StoreError> {
    let bits = getrandom::u64().map_err(|source| StoreError::Unavailable {
        store: STORE,
        operation,
        source: Box::new(source),
    })?;
    Ok(format!("{bits:016x}"))
}

/// Reads a value of the hash.
fn row(value: &str) -> Result<TemporaryRow, StoreError> {
    let json = value.split_once(' ').map(|(_, json)| json);
    json.and_then(TemporaryRow::from_json).ok_or_else(damaged)
}

impl TemporaryStore for RedisStore {
    fn upload(&self, rows: Vec<TemporaryRow>) -> StoreFuture<'_, Instance> {
        Box::pin(async move {
            let generation = generation(UPLOAD.name)?;
            let mut keys = vec![self.client.marker_key(ROWS), ROWS.to_owned(), ALL.to_owned()];
            keys.extend(indices());
            let written: Vec<String> = rows.iter().map(TemporaryRow::to_json).collect();
            let mut args: Vec<Arg<'_>> = vec![(&generation).into()];
            for (row, content) in rows.iter().zip(&written) {
                args.extend::<[Arg<'_>; 4]>([
                    row.number.as_str().into(),
                    row.status().as_str().into(),
                    row.revision.into(),
                    content.into(),
                ]);
            }
            let kept: String = self.client.run(&UPLOAD, &keys, &args, self.timeout).await?;
            Ok(Instance(kept.into()))
        })
    }

    fn find(&self, number: TemporaryNumber) -> StoreFuture<'_, Option<TemporaryRow>> {
        Box::pin(async move {
            self.client.at_hand(FIND.name, ROWS).await?;
            let (generation, keys) =
                (generation(FIND.name)?, [self.client.marker_key(ROWS), ROWS.to_owned()]);
            let args = [(&generation).into(), number.as_str().into()];
            let found: Option<String> = self.client.run(&FIND, &keys, &args, self.timeout).await?;
            found.as_deref().map(row).transpose()
        })
    }

    fn swap(&self, new: TemporaryRow) -> StoreFuture<'_, RowSwap> {
        Box::pin(async move {
            self.client.at_hand(SWAP.name, ROWS).await?;
            let generation = generation(SWAP.name)?;
            let mut keys = vec![self.client.marker_key(ROWS), ROWS.to_owned()];
            keys.extend(indices());
            let content = new.to_json();
            let args = [
                (&generation).into(),
                new.number.as_str().into(),
                new.status().as_str().into(),
                new.revision.into(),
                (&content).into(),
            ];
            let answer: Vec<String> = self.client.run(&SWAP, &keys, &args, self.timeout).await?;
            match answer.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["done"] => Ok(RowSwap::Done),
                ["changed"] => Ok(RowSwap::Changed(None)),
                ["changed", present] => Ok(RowSwap::Changed(Some(row(present)?))),
                _ => Err(damaged()),
            }
        })
    }

    fn list(&self, query: TemporaryQuery) -> StoreFuture<'_, Vec<TemporaryRow>> {
        Box::pin(async move {
            self.client.at_hand(LIST.name, ROWS).await?;
            let (first, end) = query.between();
            let keys = [index_of(query.status).to_owned(), ROWS.to_owned()];
            let args = [(&first).into(), (&end).into(), query.limit.into()];
            let rows: Vec<Option<String>> = self.client.run(&LIST, &keys, &args, self.timeout).await?;
            rows.iter().map(|value| row(value.as_deref().ok_or_else(damaged)?)).collect()
        })
    }

    fn count_open(&self) -> StoreFuture<'_, u64> {
        Box::pin(async move {
            let count = cmd("ZCARD").arg(index_of(Some(Status::Open))).to_owned();
            self.client.query("count_temporary", &count).await
        })
    }
}
