//! The register of prefix rules: which rule is in force, and which change of it is safe.
//!
//! # Purpose
//!
//! A prefix key never yields the same text twice, whatever an operator does to its rule. The code that issues numbers asks for
//! the rule ([`Registry::get`]), declares that it is about to use it ([`Registry::ensure_used`]), draws and renders. The code
//! that manages rules saves and deletes them ([`Registry::put`] ...). Everything here rests on one conditional write of
//! [`RuleStore`](crate::store::RuleStore).
//!
//! # Invariants
//!
//! Two numbers of one key have the same text only if their formats can yield it. So it is enough to look at pairs of an *era*
//! (a format and a kind of value, counted or snowflake, under which numbers may have been issued) and the rule that is to come:
//!
//! 1. **Nothing is forgotten.** A rule is marked used in the store before its first number is answered. A used rule that is replaced or
//!    deleted becomes an era of the record's history in the same write. Eras are never removed, also not by deletion.
//! 2. **Formats that share no text** need nothing else.
//! 3. **The same pieces** (only the zero-fill may differ) share a text only where the sequence value and all that is printed of the
//!    date are equal. Snowflakes never repeat a value. Counted values do not repeat within a counter, and the printed text
//!    determines the counter (a reset whose period cannot be read off the number is refused). Time zones do not matter
//!    for that: the period follows from the local date, which is what is printed. Dates of the fiscal year 1999 are refused where
//!    `{fy:2}` alone would print it as 2099.
//! 4. **Any other pair is refused**: formats that differ and can meet, and a change between counted and snowflake values under
//!    texts that can meet (`FormatConflict`).
//! 5. **A change of the reset scheme** (the reset, and the start of the fiscal year under a fiscal reset) breaks 3, since other
//!    counters now print the same dates. It is closed by a *floor*: counters of periods that began on or before a date start above the
//!    highest value of any counter of the key. That date is the day of the change, or the latest date that was ever printed,
//!    which document dates can put far ahead; so for counted formats with a date the record keeps the latest date, written
//!    before a number with a later one is answered. No wall clock is trusted: a later date is a later date even if the clock
//!    was wrong. Where a fiscal year is told by its name alone, the name is what comes back, though the year of that name began on
//!    another day before: it counts as begun on the first of January.
//!    A floor never falls: a store that lost counters no longer knows the values that an earlier change found.
//! 6. **The floor is read after the old rule has come to rest.** It is settled by the first use of the new rule, after it was published and
//!    every request that was drawing under the old one (it holds a [`Usable`]) has ended. Until then nothing is drawn
//!    under the new rule.
//! 7. **`initial_seq` is where counters begin**, and it is fixed once a counter began: a later value is a `StateConflict`, also
//!    for a rule that was deleted in between.
//! 8. **Every write is conditional** on the record that it was worked out from; a lost race works it out again. So no update is lost,
//!    and [`CompiledRule::etag`] counts the changes that an operator can see, not the housekeeping of 1, 5 and 6.
//!
//! # Several processes over one store
//!
//! 1, 2, 3, 4, 7 and 8 hold for them as they stand, since the store arbitrates: a process that has not heard of a change either uses an
//! era, or is told when it wants to mark the rule as used. 6 sees the requests of its own process only; between processes it reads:
//!
//! 9. **Retired before read.** The schemes of a key are numbered in the order of its rules, every draw carries its number
//!    ([`Bounds::scheme`](crate::store::Bounds)), and before the floor is read every lower number is refused at the counters
//!    themselves, those that do not exist yet included ([`CounterStore::retire`](crate::store::CounterStore::retire)). So a process that
//!    was paused between its look at the rule and its draw finds the door closed, however long it slept and whatever its clock
//!    says; it learns the new rule and draws again. What it holds in a segment lies below the floor, since `retire` answers the highest
//!    value that can still be issued.
//!
//! Later dates (5) are written on condition that the record still stands, so they need nothing else.
//!
//! # Order
//!
//! `resolve` (draft to rule) and `history` (eras, scheme, floor) are pure; `save` puts them together into the next record;
//! `compiled` is a rule as requests see it; `catalog` keeps them in key order and finds colliding ones by their `outline`; `registry` holds the
//! cache and is the door to all of it; `usage` is the way from a first number to a used rule; `trail` is what the audit trail
//! says of a change.

mod adopt;
mod catalog;
mod compiled;
mod error;
mod history;
mod if_match;
mod outline;
mod reconcile;
mod refresh;
mod registry;
mod resolve;
mod save;
#[cfg(test)]
mod tests;
mod trail;
mod usage;

pub use compiled::{CompiledRule, Moment, Usable};
pub use error::{Reappearance, SaveError, UseError, Warning};
pub use if_match::IfMatch;
pub use refresh::{Follower, Following, Footing};
pub use registry::{Loaded, Misunderstood, Page, Registry, Settings};
pub use resolve::require_seq;
pub use save::{Preview, Saved, Status, Visible};
