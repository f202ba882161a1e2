//! Temporary numbers of all nodes.
//!
//! What becomes of a row is decided in [`TemporaryRow`]; here only revisions are compared. That a final number stands for one of them is
//! a unique index. While a database that may have forgotten settles, no row is shown to be judged, and none is replaced.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use sqlx::{PgConnection, Row, postgres::PgRow};

use super::{
    PostgresStore, STORE,
    audit::enter,
    failure::Failure,
    memory::observe,
    values::{signed, unsigned},
};
use crate::store::{
    Instance, Note, RowSwap, Status, StoreError, StoreFuture, TemporaryNumber, TemporaryQuery, TemporaryRow,
    TemporaryStore,
};

/// A row that has come further stands.
const UPLOAD: &str = "
    INSERT INTO numgen_temporary AS known (number, prefix_key, status, revision, final_number, content)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[])
    ON CONFLICT (number) DO UPDATE
    SET status = excluded.status, revision = excluded.revision, final_number = excluded.final_number,
        content = excluded.content
    WHERE known.revision < excluded.revision";
const ONE: &str = "SELECT content FROM numgen_temporary WHERE number = $1";
const SWAP: &str = "
    UPDATE numgen_temporary SET status = $2, revision = $3, final_number = $4, content = $5
    WHERE number = $1 AND revision = $3 - 1";
const LIST: &str =
    "SELECT content FROM numgen_temporary WHERE number > $1 AND number < $2 ORDER BY number LIMIT $3";
const LIST_OF_STATUS: &str = "SELECT content FROM numgen_temporary
    WHERE status = $4 AND number > $1 AND number < $2 ORDER BY number LIMIT $3";
const OPEN: &str = "SELECT count(*) AS rows FROM numgen_temporary WHERE status = 'open'";

impl TemporaryStore for PostgresStore {
    fn upload(&self, rows: Vec<TemporaryRow>) -> StoreFuture<'_, Instance> {
        Box::pin(async move { self.transact("upload_temporary", &rows, upload).await })
    }

    fn find(&self, number: TemporaryNumber) -> StoreFuture<'_, Option<TemporaryRow>> {
        Box::pin(async move {
            self.transact("find_temporary", &number, |connection, number| {
                Box::pin(async move {
                    settled(connection, "find_temporary").await?;
                    find(connection, number).await
                })
            })
            .await
        })
    }

    fn swap(&self, new: TemporaryRow) -> StoreFuture<'_, RowSwap> {
        Box::pin(async move { self.transact("swap_temporary", &(new, None), swap).await })
    }

    fn swap_noted(&self, new: TemporaryRow, note: Note) -> StoreFuture<'_, RowSwap> {
        Box::pin(async move { self.transact("swap_temporary", &(new, Some(note)), swap).await })
    }

    fn list(&self, query: TemporaryQuery) -> StoreFuture<'_, Vec<TemporaryRow>> {
        Box::pin(async move { self.transact("list_temporary", &query, list).await })
    }

    fn count_open(&self) -> StoreFuture<'_, u64> {
        Box::pin(async move {
            self.transact("count_temporary", &(), |connection, ()| {
                Box::pin(async move { unsigned(&sqlx::query(OPEN).fetch_one(connection).await?, "rows") })
            })
            .await
        })
    }
}

fn upload<'c>(
    connection: &'c mut PgConnection,
    rows: &'c Vec<TemporaryRow>,
) -> BoxFuture<'c, Result<Instance, Failure>> {
    Box::pin(async move {
        let generation = observe(connection).await?.generation;
        // Of one number the furthest, of equals the first: one statement writes a row once. In the order of numbers, so that two
        // nodes that upload the same never wait for each other in a circle.
        let mut furthest = BTreeMap::<&str, &TemporaryRow>::new();
        for row in rows {
            let known = furthest.entry(row.number.as_str()).or_insert(row);
            if known.revision < row.revision {
                *known = row;
            }
        }
        if !furthest.is_empty() {
            let rows: Vec<&TemporaryRow> = furthest.into_values().collect();
            let column = |of: fn(&TemporaryRow) -> &str| rows.iter().map(|row| of(row)).collect::<Vec<_>>();
            sqlx::query(UPLOAD)
                .bind(column(|row| row.number.as_str()))
                .bind(column(|row| row.number.key().as_str()))
                .bind(column(|row| row.status().as_str()))
                .bind(rows.iter().map(|row| signed(row.revision)).collect::<Vec<_>>())
                .bind(rows.iter().map(|row| row.final_number()).collect::<Vec<_>>())
                .bind(rows.iter().map(|row| row.to_json()).collect::<Vec<_>>())
                .execute(connection)
                .await?;
        }
        Ok(Instance(generation.to_string().into()))
    })
}

fn swap<'c>(
    connection: &'c mut PgConnection,
    (new, note): &'c (TemporaryRow, Option<Note>),
) -> BoxFuture<'c, Result<RowSwap, Failure>> {
    Box::pin(async move {
        settled(connection, "swap_temporary").await?;
        let done = sqlx::query(SWAP)
            .bind(new.number.as_str())
            .bind(new.status().as_str())
            .bind(signed(new.revision))
            .bind(new.final_number())
            .bind(new.to_json())
            .execute(&mut *connection)
            .await?;
        match done.rows_affected() {
            0 => Ok(RowSwap::Changed(find(connection, &new.number).await?)),
            _ => {
                enter(connection, note.as_ref()).await?;
                Ok(RowSwap::Done)
            }
        }
    })
}

fn list<'c>(
    connection: &'c mut PgConnection,
    query: &'c TemporaryQuery,
) -> BoxFuture<'c, Result<Vec<TemporaryRow>, Failure>> {
    Box::pin(async move {
        let (first, end) = query.between();
        let statement = if query.status.is_some() { LIST_OF_STATUS } else { LIST };
        let mut list = sqlx::query(statement).bind(first).bind(end).bind(i64::from(query.limit));
        if let Some(status) = query.status {
            list = list.bind(Status::as_str(status));
        }
        list.fetch_all(connection).await?.iter().map(row).collect()
    })
}

/// Nodes may still tell of decisions that were forgotten.
#[derive(Debug, thiserror::Error)]
#[error("the store waits for the temporary numbers of all nodes")]
struct Settling;

/// Refuses what rests on all decisions while they are heard. What it begins of a memory is rolled back with it: an upload begins that.
async fn settled(connection: &mut PgConnection, operation: &'static str) -> Result<(), Failure> {
    match observe(connection).await?.settling {
        None => Ok(()),
        Some(_) => {
            Err(StoreError::Unavailable { store: STORE, operation, source: Box::new(Settling) }.into())
        }
    }
}

async fn find(
    connection: &mut PgConnection,
    number: &TemporaryNumber,
) -> Result<Option<TemporaryRow>, Failure> {
    let found = sqlx::query(ONE).bind(number.as_str()).fetch_optional(connection).await?;
    found.as_ref().map(row).transpose()
}

fn row(row: &PgRow) -> Result<TemporaryRow, Failure> {
    TemporaryRow::from_json(row.try_get("content")?)
        .ok_or_else(|| Failure::corrupt("a temporary number that cannot be read"))
}
