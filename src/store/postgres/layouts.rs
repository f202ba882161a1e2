//! The layout of snowflake IDs: one, with one epoch, for all data centres of a database.
//!
//! Invariant: two data centres never have different layouts or epochs here. IDs of two data centres differ in the bits of the data
//! centre; with other bits in that place they could be equal.

use sqlx::{PgConnection, Row};

use super::failure::Failure;

const RECORDED: &str = "SELECT datacenter, layout FROM numgen_layouts ORDER BY datacenter";
/// Two that come first see each other's record.
const ALONE: &str = "LOCK TABLE numgen_layouts IN SHARE ROW EXCLUSIVE MODE";
const RECORD: &str = "INSERT INTO numgen_layouts (datacenter, layout) VALUES ($1, $2)";

/// Records the layout of a data centre on first use. Answers what is recorded: of this data centre, or of one that disagrees.
pub(super) async fn pin(
    connection: &mut PgConnection,
    &(datacenter, layout): &(i32, &str),
) -> Result<String, Failure> {
    if let Some(recorded) = recorded(connection, datacenter, layout).await? {
        return Ok(recorded);
    }
    sqlx::query(ALONE).execute(&mut *connection).await?;
    if let Some(recorded) = recorded(connection, datacenter, layout).await? {
        return Ok(recorded);
    }
    sqlx::query(RECORD).bind(datacenter).bind(layout).execute(connection).await?;
    Ok(layout.to_owned())
}

/// What binds a data centre that wants `layout`: what another one has that does not go with it, or else what it has itself.
pub(super) async fn recorded(
    connection: &mut PgConnection,
    datacenter: i32,
    layout: &str,
) -> Result<Option<String>, sqlx::Error> {
    let mut own = None;
    for row in sqlx::query(RECORDED).fetch_all(connection).await? {
        let (of, recorded): (i32, String) = (row.try_get("datacenter")?, row.try_get("layout")?);
        if of == datacenter {
            own = Some(recorded);
        } else if common(&recorded) != common(layout) {
            return Ok(Some(recorded));
        }
    }
    Ok(own)
}

/// What all data centres have in common: everything but the last word, which is the ID of one.
fn common(layout: &str) -> &str {
    layout.rsplit_once(' ').map_or(layout, |(common, _id)| common)
}
