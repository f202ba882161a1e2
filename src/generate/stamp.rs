//! What an answer depends on besides its values, and how it is remembered.
//!
//! An idempotency record keeps the stamp of the first request beside the values that it drew. Rendering is pure, so the
//! same stamp and values give the same numbers, `{rand}`, dates and worker included, on any node, after any change of
//! the rule.

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use chrono::NaiveDateTime;
use serde::{Deserialize, Serialize};

use crate::{
    calendar::FiscalYearStart,
    clock::UnixMillis,
    store::Claim,
    template::{Origin, RenderContext, Template},
};

use super::{Engine, IssueError, Order, temporary};

/// Everything but format, prefix key and value that a number depends on.
#[derive(Clone, Debug)]
pub(super) struct Stamp {
    local: NaiveDateTime,
    fiscal_year_start: FiscalYearStart,
    origin: Origin,
    seed: [u8; 32],
    pub(super) reserved_until: Option<UnixMillis>,
}

/// A stamp and its format as they are stored.
#[derive(Serialize, Deserialize)]
struct Written {
    format: String,
    seq_length: u8,
    local: NaiveDateTime,
    fiscal_year_start: String,
    origin: [u32; 4],
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seed: Option<[u8; 32]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reserved_until_ms: Option<i64>,
}

impl Stamp {
    pub(super) fn context<'a>(&self, prefix: &'a str) -> RenderContext<'a> {
        RenderContext {
            prefix,
            local: self.local,
            fiscal_year_start: self.fiscal_year_start,
            origin: self.origin,
            seed: self.seed,
        }
    }

    fn write(&self, template: &Template) -> Option<Arc<str>> {
        let Origin { datacenter, worker, max_datacenter, max_worker } = self.origin;
        let written = Written {
            format: template.text().to_owned(),
            seq_length: template.seq_width(),
            local: self.local,
            fiscal_year_start: self.fiscal_year_start.to_string(),
            origin: [datacenter, worker, max_datacenter, max_worker],
            seed: template.needs_seed().then_some(self.seed),
            reserved_until_ms: self.reserved_until.map(|until| until.0),
        };
        serde_json::to_string(&written).ok().map(Arc::from)
    }

    /// The template and the stamp of a record; `None` where it is damaged.
    pub(super) fn recall(text: &str) -> Option<(Template, Self)> {
        let written: Written = serde_json::from_str(text).ok()?;
        let [datacenter, worker, max_datacenter, max_worker] = written.origin;
        let stamp = Self {
            local: written.local,
            fiscal_year_start: FiscalYearStart::parse(&written.fiscal_year_start)?,
            origin: Origin { datacenter, worker, max_datacenter, max_worker },
            seed: written.seed.unwrap_or_default(),
            reserved_until: written.reserved_until_ms.map(UnixMillis),
        };
        Some((Template::parse(&written.format, Some(written.seq_length)).ok()?, stamp))
    }
}

impl Engine {
    /// Fixes the context of an order.
    pub(super) fn stamp(&self, order: &Order<'_>) -> Result<Stamp, IssueError> {
        Ok(Stamp {
            local: order.local,
            fiscal_year_start: order.rule.fiscal_year_start,
            origin: self.origin(),
            seed: seed(order.template)?,
            reserved_until: order.reserve.map(|reserve| self.shared_time(order.now).plus(reserve)),
        })
    }

    /// What keys and reservations go by: the clock that nodes share. By its own, `here`, a node that is a day ahead would end those of all.
    pub(super) fn shared_time(&self, here: UnixMillis) -> UnixMillis {
        self.ids.store_time(self.settings.epoch).unwrap_or(here)
    }

    /// The claim on an order's idempotency key, if it has one.
    pub(super) fn claim(&self, order: &Order<'_>, stamp: &Stamp) -> Result<Option<Claim>, IssueError> {
        let Some(key) = &order.idempotency_key else { return Ok(None) };
        let kept =
            if temporary::is_claim(key) { temporary::CLAIM_TTL } else { self.settings.idempotency_ttl };
        let stamp =
            stamp.write(order.template).ok_or(IssueError::Internal("a stamp could not be written"))?;
        let scope =
            digest(&[order.subject.as_bytes(), order.rule.prefix_key.as_str().as_bytes(), key.as_bytes()]);
        let now = self.shared_time(order.now);
        Ok(Some(Claim {
            scoped_key: hex(&scope).into(),
            fingerprint: digest(&[
                &order.count.to_be_bytes(),
                order.date.map(|date| date.to_string()).unwrap_or_default().as_bytes(),
                &order.reserve.map_or(0, |reserve| reserve.as_secs()).to_be_bytes(),
            ]),
            stamp,
            claimed_at: now,
            expires_at: now.plus(kept),
        }))
    }
}

/// Random bytes for `{rand}`; zeros where the template has none.
pub(super) fn seed(template: &Template) -> Result<[u8; 32], IssueError> {
    let mut seed = [0; 32];
    if template.needs_seed() {
        getrandom::fill(&mut seed).map_err(IssueError::Random)?;
    }
    Ok(seed)
}

/// SHA-256 over parts, each behind its length, so that no two lists of parts give the same input.
fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        use std::fmt::Write;
        // Writing to a String cannot fail.
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cannot_be_shifted_into_each_other() {
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
        assert_eq!(hex(&[0, 255, 16]), "00ff10");
    }

    #[test]
    fn a_damaged_record_is_noticed() {
        assert!(Stamp::recall("{}").is_none());
        assert!(Stamp::recall("not json").is_none());
    }
}
