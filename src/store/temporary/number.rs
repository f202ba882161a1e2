//! The text of a temporary number: `TMP~<prefix key>~<node>~<stamp and making>`.
//!
//! Why two are never alike: within one process stamps rise; a process begins above the highest stamp in the journal, which was on
//! disk before its number was answered; nodes differ by name. Where an operator gives two nodes one name, or a data directory is
//! lost or restored under a fixed name, the *making* tells them apart: 25 random bits, drawn at each start.

use std::{fmt, sync::Arc};

use crate::{clock::UnixMillis, config::NodeName, prefix_key::PrefixKey};

const TAG: &str = "TMP";

/// Crockford's base 32: ascends in ASCII, has no letter that looks like a digit.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Digits of a stamp: 13 x 5 bits hold 64.
const STAMP_DIGITS: usize = 13;

const MAKING_DIGITS: usize = 5;

/// Bits below the milliseconds: so many numbers a millisecond, and then it borrows from the next one.
const COUNT_BITS: u32 = 16;

/// The highest time of a stamp, in ms since 1970: the year 6429. Stamps so stay below 2^63, which every store can keep.
const LAST_MS: u64 = (1 << 47) - 1;

/// When a temporary number was made, and how many others in the same millisecond before it: milliseconds since 1970 times 2^16,
/// plus the count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(pub u64);

impl Stamp {
    /// The first stamp of a moment; moments outside the range are those at its ends.
    pub fn first_of(moment: UnixMillis) -> Self {
        Self(u64::try_from(moment.0).unwrap_or(0).min(LAST_MS) << COUNT_BITS)
    }

    /// The first of the stamps to use now, above `last` whatever the clock says.
    #[must_use]
    pub fn after(last: Option<Self>, now: UnixMillis) -> Self {
        let first = Self::first_of(now);
        last.map_or(first, |last| first.max(Self(last.0 + 1)))
    }
}

/// Tells the numbers of one start of a process from those of any other: 25 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Making(u32);

impl Making {
    /// From random bits, of which the lowest 25 count.
    pub const fn new(bits: u32) -> Self {
        Self(bits & ((1 << (5 * MAKING_DIGITS)) - 1))
    }
}

/// A temporary number. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TemporaryNumber {
    text: Arc<str>,
    key: PrefixKey,
}

impl TemporaryNumber {
    /// The number that a node makes for a prefix key.
    pub fn new(key: &PrefixKey, node: &NodeName, stamp: Stamp, making: Making) -> Self {
        let mut text = format!("{TAG}~{key}~{node}~");
        write_digits(stamp.0, STAMP_DIGITS, &mut text);
        write_digits(making.0.into(), MAKING_DIGITS, &mut text);
        Self { text: text.into(), key: key.clone() }
    }

    /// The number that a text is, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('~');
        let (TAG, key, node, tail, None) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next())
        else {
            return None;
        };
        let key = PrefixKey::parse(key).ok()?;
        NodeName::parse(node)?;
        (tail.len() == STAMP_DIGITS + MAKING_DIGITS).then_some(())?;
        read_digits(tail.get(..STAMP_DIGITS)?)?;
        read_digits(tail.get(STAMP_DIGITS..)?)?;
        Some(Self { text: text.into(), key })
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The prefix key that it was made for.
    pub fn key(&self) -> &PrefixKey {
        &self.key
    }

    /// The name of the node that made it.
    pub fn node(&self) -> &str {
        self.text.split('~').nth(2).unwrap_or_default()
    }

    /// When it was made.
    pub fn stamp(&self) -> Stamp {
        let digits = self.text.rsplit('~').next().and_then(|tail| tail.get(..STAMP_DIGITS));
        Stamp(digits.and_then(read_digits).unwrap_or(0))
    }

    /// Whether a text looks like a temporary number, whole or not: no final number does.
    pub fn is_tagged(text: &str) -> bool {
        text.strip_prefix(TAG).is_some_and(|rest| rest.starts_with('~'))
    }

    /// A position in the order of numbers behind all numbers of a prefix key.
    pub fn behind(key: &PrefixKey) -> String {
        above(key)
    }
}

/// A text below every number of a key.
pub(super) fn below(key: &PrefixKey) -> String {
    format!("{TAG}~{key}~")
}

/// A text above every number of a key, and below those of any later one: a node name has nothing as high as `~`.
pub(super) fn above(key: &PrefixKey) -> String {
    format!("{TAG}~{key}~~")
}

impl fmt::Display for TemporaryNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for TemporaryNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

fn write_digits(value: u64, digits: usize, out: &mut String) {
    let digit = |place: usize| char::from(DIGITS[((value >> (5 * place)) & 31) as usize]);
    out.extend((0..digits).rev().map(digit));
}

/// The value of digits as they are written, `None` for any other text or more than 64 bits.
fn read_digits(text: &str) -> Option<u64> {
    text.bytes().try_fold(0_u64, |value, byte| {
        let digit = DIGITS.iter().position(|&digit| digit == byte)?;
        value.checked_mul(32)?.checked_add(digit as u64)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(key: &str, node: &str, stamp: u64) -> TemporaryNumber {
        let (key, node) = (PrefixKey::parse(key).unwrap(), NodeName::parse(node).unwrap());
        TemporaryNumber::new(&key, &node, Stamp(stamp), Making::new(0x1_2345))
    }

    #[test]
    fn says_where_and_when_it_was_made() {
        let made = number("ORDERS", "web1-ab12", Stamp::first_of(UnixMillis(1_795_348_800_000)).0 + 3);
        assert_eq!(made.as_str(), "TMP~ORDERS~web1-ab12~038G342H00003028T5");
        let read = TemporaryNumber::parse(made.as_str()).expect("a number");
        assert_eq!((read.key().as_str(), read.node()), ("ORDERS", "web1-ab12"));
        assert_eq!(read.stamp().0 & 0xFFFF, 3);
        assert_eq!(read, made);
    }

    #[test]
    fn other_texts_are_none() {
        for wrong in [
            "",
            "TMP",
            "TMP~ORDERS~n",
            "TMP~ORDERS~n~0388D8BVC0003028T",
            "TMP~ORDERS~n~0388D8BVC0003028TU",
            "TMP~ORDERS~n~0388D8BVC0003028T5~",
            "TMP~~n~0388D8BVC0003028T5",
            "TMP~decode~n~0388D8BVC0003028T5",
            "TMP~ORDERS~ö~0388D8BVC0003028T5",
            "tmp~ORDERS~n~0388D8BVC0003028T5",
            "TMP~ORDERS~n~ZZZZZZZZZZZZZ028T5",
        ] {
            assert_eq!(TemporaryNumber::parse(wrong), None, "{wrong}");
        }
        assert!(TemporaryNumber::is_tagged("TMP~x") && !TemporaryNumber::is_tagged("TMP-0001"));
    }

    proptest! {
        #[test]
        fn a_number_survives_its_text(key in "[A-Za-z0-9_-]{1,64}", node in "[A-Za-z0-9._-]{1,64}", stamp in 0_u64.., bits in any::<u32>()) {
            prop_assume!(key != "decode");
            let (key, node) = (PrefixKey::parse(&key).unwrap(), NodeName::parse(&node).unwrap());
            let made = TemporaryNumber::new(&key, &node, Stamp(stamp), Making::new(bits));
            let read = TemporaryNumber::parse(made.as_str()).expect("a number");
            prop_assert_eq!((read.key(), read.node(), read.stamp()), (&key, node.as_str(), Stamp(stamp)));
            prop_assert!(below(&key).as_str() < made.as_str() && made.as_str() < above(&key).as_str());
        }

        /// The numbers of a key stand together in the order of texts.
        #[test]
        fn keys_do_not_mix(one in "[A-z0-9._-]{1,4}", other in "[A-z0-9._-]{1,4}", node in "[A-Za-z0-9._-]{1,4}") {
            let (Ok(one), Ok(other)) = (PrefixKey::parse(&one), PrefixKey::parse(&other)) else { return Ok(()) };
            prop_assume!(one != other);
            let stranger = TemporaryNumber::new(&other, &NodeName::parse(&node).unwrap(), Stamp(7), Making::new(0));
            prop_assert!(stranger.as_str() < below(&one).as_str() || above(&one).as_str() < stranger.as_str());
        }

        /// Whatever the clock does, stamps rise.
        #[test]
        fn stamps_rise_under_any_clock(clock in proptest::collection::vec((any::<i64>(), 1_u64..100_000), 1..50)) {
            let mut last: Option<Stamp> = None;
            for (now, count) in clock {
                let first = Stamp::after(last, UnixMillis(now));
                prop_assert!(last.is_none_or(|last| last < first));
                prop_assert!(first >= Stamp::first_of(UnixMillis(now)));
                last = Some(Stamp(first.0 + count - 1));
            }
        }
    }
}
