//! Whether two formats can yield the same text.
//!
//! `{SEQ}` is the only piece of variable width, and it has at most 20 digits. So for each length of the whole text both
//! formats are rows of bytes, each from a known set, and they can meet just where every pair of sets does. Comparing
//! bytes is enough, since literals are in NFC and variables write ASCII.

use super::{Origin, Template, render::sample, shape::ByteSet, variable::Piece};
use crate::counter::SequenceValue;

/// A text that both can yield; a format comes with the prefix key of its rule.
pub(super) fn common_text(
    one: (&Template, &str),
    other: (&Template, &str),
    origin: Origin,
) -> Option<String> {
    let one = Side { template: one.0, prefix: one.1, origin };
    let other = Side { template: other.0, prefix: other.1, origin };
    // Nearly all pairs differ in their first letters, nearly all others in their last ones. Neither end depends on how many
    // digits `{SEQ}` has.
    if !meet(one.start().zip(other.start())) || !meet(one.end().zip(other.end())) {
        return None;
    }
    let (one_width, other_width) = (one.fixed_width(), other.fixed_width());
    let (one_digits, other_digits) = (one.template.sequence.digits(), other.template.sequence.digits());
    one_digits
        .filter_map(|digits| Some((digits, (one_width + digits).checked_sub(other_width)?)))
        .filter(|(_, digits)| other_digits.contains(digits))
        .find(|&(own, others)| meet(one.layout(own).zip(other.layout(others))))
        .and_then(|(own, others)| example(one, own, other, others))
}

fn meet(mut pairs: impl Iterator<Item = (ByteSet, ByteSet)>) -> bool {
    pairs.all(|(one, other)| one.common(other).is_some())
}

/// One of the two formats.
#[derive(Clone, Copy)]
struct Side<'a> {
    template: &'a Template,
    prefix: &'a str,
    origin: Origin,
}

impl<'a> Side<'a> {
    fn bytes(self, pieces: &'a [Piece]) -> impl DoubleEndedIterator<Item = ByteSet> {
        pieces.iter().flat_map(move |piece| {
            let shape = piece.shape(self.prefix, self.origin);
            (0..shape.width()).map(move |index| shape.byte(index))
        })
    }

    /// The pieces before `{SEQ}` and the digits that it has at least.
    fn start(self) -> impl Iterator<Item = ByteSet> {
        self.bytes(&self.template.head).chain(self.fewest_digits())
    }

    /// The pieces after `{SEQ}` and the digits that it has at least, from right to left.
    fn end(self) -> impl Iterator<Item = ByteSet> {
        self.bytes(&self.template.tail).rev().chain(self.fewest_digits())
    }

    fn fewest_digits(self) -> impl Iterator<Item = ByteSet> {
        let sequence = self.template.sequence;
        std::iter::repeat_n(ByteSet::OneOf(sequence.encoding.characters()), sequence.width.into())
    }

    /// The width of everything but `{SEQ}`.
    fn fixed_width(self) -> usize {
        self.template.pieces().map(|piece| piece.shape(self.prefix, self.origin).width()).sum()
    }

    /// What each byte can be when `{SEQ}` has so many digits.
    fn layout(self, digits: usize) -> impl Iterator<Item = ByteSet> {
        let sequence = self.template.sequence;
        let middle = (0..digits).map(move |index| sequence.byte(index, digits));
        self.bytes(&self.template.head).chain(middle).chain(self.bytes(&self.template.tail))
    }

    /// A number with so many digits for `{SEQ}`.
    fn sample(self, digits: usize) -> String {
        sample(self.template, self.prefix, self.origin, SequenceValue(self.template.sequence.sample(digits)))
    }
}

/// A text in both layouts, as close as may be to an ordinary number.
fn example(one: Side<'_>, digits: usize, other: Side<'_>, other_digits: usize) -> Option<String> {
    let samples = (one.sample(digits), other.sample(other_digits));
    let samples = samples.0.bytes().zip(samples.1.bytes());
    let layouts = one.layout(digits).zip(other.layout(other_digits));
    let bytes = layouts.zip(samples).map(|((one, other), samples)| {
        let likely = [samples.0, samples.1].into_iter();
        likely.clone().find(|&byte| one.contains(byte) && other.contains(byte)).or_else(|| one.common(other))
    });
    // Either layout alone makes this UTF-8.
    String::from_utf8(bytes.collect::<Option<_>>()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: Origin = Origin { datacenter: 0, worker: 0, max_datacenter: 31, max_worker: 1023 };

    fn common(one: &str, other: &str) -> Option<String> {
        let [left, right] = [one, other].map(|format| Template::parse(format, None).expect(format));
        let found = left.common_text("ORDERS", &right, "BILLS", ORIGIN);
        let mirrored = right.common_text("BILLS", &left, "ORDERS", ORIGIN);
        assert_eq!(found.is_some(), mirrored.is_some(), "{one} {other}: not symmetric");
        found
    }

    #[test]
    fn disjoint_formats() {
        for (one, other) in [
            ("A-{SEQ:4}", "B-{SEQ:4}"),
            ("{SEQ:4}-A", "{SEQ:4}-B"),
            ("{SEQ:4}", "{SEQ:4}-"),
            ("{prefix}-{SEQ:4}", "{prefix}-{SEQ:4}"),
            ("{year}-{SEQ:4}", "{year}{month}-{SEQ:4}"),
            ("{year}-{SEQ:4}", "{SEQ:4}/{year}"),
            ("Q{quarter}-{SEQ:4}", "Q5-{SEQ:4}"),
            ("发票{SEQ:4}", "发货{SEQ:4}"),
            ("A{SEQ:4}", "Ä{SEQ:4}"),
            ("X{SEQ:20:hex}", "X123{SEQ:17:hex}"),
            // At most 20 digits, then the letter.
            ("{SEQ:1}A", "000000000000000000000{SEQ:1}A"),
        ] {
            assert_eq!(common(one, other), None, "{one} {other}");
        }
    }

    #[test]
    fn formats_that_can_meet() {
        for (one, other, example) in [
            ("A-{SEQ:4}", "A-{SEQ:6}", "A-100000"),
            ("INV-2024-{SEQ:4}", "INV-{year}-{SEQ:4}", "INV-2024-0001"),
            ("{year}{SEQ:4}", "{SEQ:8}", "20260001"),
            ("{SEQ:4}", "{SEQ:4:hex}", "0001"),
            ("ORDERS-{SEQ:4}", "{prefix}-{SEQ:4}", ""),
            ("{prefix}-{SEQ:4}", "ORDERS-{SEQ:4}", "ORDERS-0001"),
            ("{{{SEQ:4}}}", "{{{SEQ:4}}}", "{0001}"),
            ("{rand:4}-{SEQ:4}", "ABCD-{SEQ:4}", "ABCD-0001"),
            ("{SEQ:4}{check:luhn}", "{SEQ:5}", "00018"),
            ("{SEQ:2}AB", "{SEQ:3:base36}", "11AB"),
            ("发票{year}{SEQ:4}", "发票{SEQ:8}", "发票20260001"),
        ] {
            let found = common(one, other);
            if example.is_empty() {
                assert_eq!(found, None, "{one} {other}: ORDERS is not BILLS");
            } else {
                assert_eq!(found.as_deref(), Some(example), "{one} {other}");
            }
        }
    }
}
