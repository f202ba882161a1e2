//! Formats such as `ORD-{year}-{SEQ:6}`: parsed once per rule, rendered into one buffer, read back by decode.

use chrono::NaiveDateTime;

use crate::{calendar::FiscalYearStart, counter::SequenceValue};

/// A parsed format. Exactly one `{SEQ}`; every other part has a fixed width, so decoding is unambiguous.
#[derive(Clone, Debug)]
pub struct Template {}

/// Everything but the sequence value that a number depends on. Pure data: the same context and value always give the same
/// text, `{rand}` included, which is expanded from the seed.
#[derive(Clone, Copy, Debug)]
pub struct RenderContext<'a> {
    /// The prefix key.
    pub prefix: &'a str,
    /// The moment of the request, or the document date at 00:00:00, in the rule's time zone.
    pub local: NaiveDateTime,
    /// For `{fy}`.
    pub fiscal_year_start: FiscalYearStart,
    /// Who issues.
    pub origin: Origin,
    /// Drawn from the operating system once per request, all zero where [`Template::needs_seed`] is false.
    pub seed: [u8; 32],
}

/// Who issued a number, and how wide that is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Data centre ID.
    pub datacenter: u32,
    /// Worker ID.
    pub worker: u32,
    /// The highest data centre ID that the layout allows; `{datacenter}` is zero-filled to its width.
    pub max_datacenter: u32,
    /// The highest worker ID that the layout allows; `{worker}` is zero-filled to its width.
    pub max_worker: u32,
}

/// Placeholder error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("placeholder")]
pub struct FormatError {}

impl Template {
    /// Placeholder.
    pub fn parse(_text: &str, _seq_length: Option<i128>) -> Result<Self, FormatError> {
        Err(FormatError {})
    }

    /// Placeholder.
    pub fn render(&self, _context: &RenderContext<'_>, _value: SequenceValue, _out: &mut String) {}
}
