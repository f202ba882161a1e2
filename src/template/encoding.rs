//! The digits in which sequence values are written, and `{SEQ:N:enc}` itself.

use std::ops::RangeInclusive;

use super::shape::{AsciiSet, ByteSet};

/// Zeros to fill up with: as many as the widest `{SEQ:N}` has.
const ZEROS: &str = "00000000000000000000";

/// How a sequence value is written. Every alphabet ascends in ASCII, and its zero is `0`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// `0-9`.
    #[default]
    Decimal,
    /// `0-9A-F`.
    Hexadecimal,
    /// Crockford's base 32: `0-9A-Z` without `I`, `L`, `O` and `U`; no hyphens, no check symbol.
    Base32,
    /// `0-9A-Z`.
    Base36,
    /// `0-9A-Za-z`.
    Base62,
}

impl Encoding {
    /// Every variant, in the order of the documentation.
    pub const ALL: [Self; 5] = [Self::Decimal, Self::Hexadecimal, Self::Base32, Self::Base36, Self::Base62];

    /// The word for it in a format.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Decimal => "dec",
            Self::Hexadecimal => "hex",
            Self::Base32 => "base32",
            Self::Base36 => "base36",
            Self::Base62 => "base62",
        }
    }

    /// By its word, in any case.
    pub(super) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|encoding| encoding.as_str().eq_ignore_ascii_case(word))
    }

    /// Its digits, ascending.
    pub(super) const fn alphabet(self) -> &'static [u8] {
        let all = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        match self {
            Self::Decimal => all.split_at(10).0,
            Self::Hexadecimal => all.split_at(16).0,
            Self::Base32 => b"0123456789ABCDEFGHJKMNPQRSTVWXYZ",
            Self::Base36 => all.split_at(36).0,
            Self::Base62 => all,
        }
    }

    const fn base(self) -> u64 {
        self.alphabet().len() as u64
    }

    pub(super) const fn characters(self) -> AsciiSet {
        match self {
            Self::Decimal => AsciiSet::DIGITS,
            Self::Hexadecimal => const { AsciiSet::of(Self::Hexadecimal.alphabet()) },
            Self::Base32 => const { AsciiSet::of(Self::Base32.alphabet()) },
            Self::Base36 => const { AsciiSet::of(Self::Base36.alphabet()) },
            Self::Base62 => const { AsciiSet::of(Self::Base62.alphabet()) },
        }
    }

    /// How many digits `u64::MAX` needs.
    const fn max_digits(self) -> u8 {
        match self {
            Self::Decimal => 20,
            Self::Hexadecimal => 16,
            Self::Base32 | Self::Base36 => 13,
            Self::Base62 => 11,
        }
    }

    fn digit(self, byte: u8) -> Option<u64> {
        self.alphabet().binary_search(&byte).ok().map(|digit| digit as u64)
    }
}

/// `{SEQ:N:enc}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sequence {
    /// N, 1 to 20.
    pub(super) width: u8,
    pub(super) encoding: Encoding,
}

impl Sequence {
    /// The largest value of at most N digits.
    pub(super) fn highest_within_width(self) -> u64 {
        self.encoding.base().checked_pow(self.width.into()).map_or(u64::MAX, |above| above - 1)
    }

    /// The smallest value that is written in `digits` digits, but 1 where 0 would be the smallest.
    pub(super) fn sample(self, digits: usize) -> u64 {
        if digits > self.width.into() { self.encoding.base().saturating_pow(digits as u32 - 1) } else { 1 }
    }

    /// How many digits there can be.
    pub(super) fn digits(self) -> RangeInclusive<usize> {
        self.width.into()..=self.width.max(self.encoding.max_digits()).into()
    }

    /// What the digit at `index` can be when `digits` are written.
    pub(super) fn byte(self, index: usize, digits: usize) -> ByteSet {
        let characters = self.encoding.characters();
        if index + usize::from(self.encoding.max_digits()) < digits {
            ByteSet::Exactly(b'0')
        } else if index == 0 && digits > self.width.into() {
            ByteSet::OneOf(characters.without(b'0'))
        } else {
            ByteSet::OneOf(characters)
        }
    }

    /// Appends `value`.
    pub(super) fn write(self, value: u64, out: &mut String) {
        if self.encoding == Encoding::Decimal {
            return push_number(value, self.width, out);
        }
        let (alphabet, base) = (self.encoding.alphabet(), self.encoding.base());
        let (mut digits, mut at, mut rest) = ([b'0'; ZEROS.len()], ZEROS.len(), value);
        while rest > 0 {
            at -= 1;
            digits[at] = alphabet[(rest % base) as usize];
            rest /= base;
        }
        at = at.min(ZEROS.len() - usize::from(self.width));
        out.extend(digits[at..].iter().map(|&digit| char::from(digit)));
    }

    /// How many bytes at the start of `bytes` can be the digits of one value: up to a byte that is none, an overflow, or
    /// a zero too many in front.
    pub(super) fn longest(self, bytes: &[u8]) -> usize {
        let limit = if bytes.first() == Some(&b'0') { self.width.into() } else { bytes.len() };
        let mut value = 0;
        for (index, &byte) in bytes.iter().take(limit).enumerate() {
            match self.append(value, byte) {
                Some(longer) => value = longer,
                None => return index,
            }
        }
        limit.min(bytes.len())
    }

    /// The value of digits that [`Self::longest`] admits; `None` for others.
    pub(super) fn read(self, digits: &[u8]) -> Option<u64> {
        digits.iter().try_fold(0, |value, &byte| self.append(value, byte))
    }

    fn append(self, value: u64, byte: u8) -> Option<u64> {
        value.checked_mul(self.encoding.base())?.checked_add(self.encoding.digit(byte)?)
    }
}

/// Appends `number` in decimal, zero-filled to at least `width`, at most 20 digits.
pub(super) fn push_number(number: impl itoa::Integer, width: u8, out: &mut String) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(number);
    out.push_str(&ZEROS[..usize::from(width).saturating_sub(digits.len())]);
    out.push_str(digits);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: u64, width: u8, encoding: Encoding) -> String {
        let mut out = String::new();
        Sequence { width, encoding }.write(value, &mut out);
        out
    }

    #[test]
    fn writes_u64_max_in_every_encoding() {
        for (encoding, expected) in [
            (Encoding::Decimal, "18446744073709551615"),
            (Encoding::Hexadecimal, "FFFFFFFFFFFFFFFF"),
            (Encoding::Base32, "FZZZZZZZZZZZZ"),
            (Encoding::Base36, "3W5E11264SGSF"),
            (Encoding::Base62, "LygHa16AHYF"),
        ] {
            assert_eq!(written(u64::MAX, 1, encoding), expected);
            assert_eq!(expected.len(), usize::from(encoding.max_digits()), "{encoding:?}");
            let filled = written(u64::MAX, 20, encoding);
            assert_eq!(filled, format!("{expected:0>20}"));
            let sequence = Sequence { width: 20, encoding };
            assert_eq!(sequence.longest(filled.as_bytes()), 20);
            assert_eq!(sequence.read(filled.as_bytes()), Some(u64::MAX));
        }
    }

    #[test]
    fn zero_fills_to_at_least_the_width() {
        assert_eq!(written(0, 1, Encoding::Decimal), "0");
        assert_eq!(written(0, 1, Encoding::Base62), "0");
        assert_eq!(written(7, 4, Encoding::Decimal), "0007");
        assert_eq!(written(10_000, 4, Encoding::Decimal), "10000");
        assert_eq!(written(255, 4, Encoding::Hexadecimal), "00FF");
        assert_eq!(written(0x1_2345, 4, Encoding::Hexadecimal), "12345");
        assert_eq!(written(61, 3, Encoding::Base62), "00z");
        assert_eq!(written(18, 2, Encoding::Base32), "0J");
        assert_eq!(written(35, 1, Encoding::Base36), "Z");
    }

    #[test]
    fn alphabets_ascend_and_are_disjoint_from_lookalikes() {
        for encoding in Encoding::ALL {
            assert!(encoding.alphabet().is_sorted_by(|a, b| a < b), "binary search needs it: {encoding:?}");
            assert_eq!(encoding.characters(), AsciiSet::of(encoding.alphabet()));
            assert_eq!(Encoding::parse(&encoding.as_str().to_uppercase()), Some(encoding));
        }
        assert_eq!(Encoding::parse("base7"), None);
        assert!(b"ILOU".iter().all(|&letter| Encoding::Base32.digit(letter).is_none()));
    }

    #[test]
    fn the_highest_value_of_a_width() {
        let highest = |width, encoding| Sequence { width, encoding }.highest_within_width();
        assert_eq!(highest(4, Encoding::Decimal), 9_999);
        assert_eq!(highest(19, Encoding::Decimal), 9_999_999_999_999_999_999);
        assert_eq!(highest(20, Encoding::Decimal), u64::MAX);
        assert_eq!(highest(16, Encoding::Hexadecimal), u64::MAX);
        assert_eq!(highest(2, Encoding::Base62), 3_843);
        assert_eq!(highest(12, Encoding::Base32), (1 << 60) - 1);
    }

    #[test]
    fn reads_as_far_as_the_digits_make_sense() {
        let four = Sequence { width: 4, encoding: Encoding::Decimal };
        assert_eq!(four.longest(b"0012-X"), 4);
        assert_eq!(four.longest(b"00123"), 4, "a zero too many in front");
        assert_eq!(four.longest(b"12345X"), 5);
        assert_eq!(four.longest(b"01"), 2);
        assert_eq!(four.longest(b""), 0);
        assert_eq!(four.longest(b"18446744073709551615"), 20);
        assert_eq!(four.longest(b"18446744073709551616"), 19, "overflow");
        let hex = Sequence { width: 2, encoding: Encoding::Hexadecimal };
        assert_eq!(hex.longest(b"ff"), 0, "upper case only");
    }
}
