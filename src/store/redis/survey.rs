//! What Redis holds that decides how a service would start; for `numgen check`.

use std::path::Path;

use redis::cmd;

use super::{
    client::{Glance, InspectError},
    rules::{DIRECT, MIRROR, STATE},
    workers::LAYOUT,
};
use crate::secret::Secret;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// Fields of `prefix_configs`.
    pub rules: u64,
    /// Fields that nobody has adopted: refused, or written while no service runs. Those that were never looked at are none of them.
    pub refused: u64,
    /// Rules that services have adopted.
    pub adopted: u64,
    /// Layout, epoch and data centre that Redis was first used with.
    pub layout: Option<String>,
}

/// Looks, and changes nothing.
///
/// # Errors
///
/// Redis is away, or the configuration can never work.
pub async fn survey(url: &Secret<String>, ca_file: Option<&Path>) -> Result<Survey, InspectError> {
    let glance = Glance::new(url, ca_file)?;
    let mut questions = [cmd("HLEN"), cmd("SCARD"), cmd("HGET")];
    questions[0].arg(MIRROR);
    questions[1].arg(DIRECT);
    questions[2].arg(STATE).arg("live");
    let counts: Vec<Option<u64>> = glance.ask(MIRROR, &questions).await?;
    let count = |index: usize| counts.get(index).copied().flatten().unwrap_or(0);
    let mut layout = cmd("GET");
    layout.arg(LAYOUT);
    let layout: Vec<Option<String>> = glance.ask(LAYOUT, &[layout]).await?;
    Ok(Survey {
        rules: count(0),
        refused: count(1),
        adopted: count(2),
        layout: layout.into_iter().next().flatten(),
    })
}
