//! What a piece can look like once it is rendered: the one description that decoding and collisions share.

/// A set of ASCII characters, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AsciiSet(u128);

impl AsciiSet {
    /// `0` to `9`.
    pub(super) const DIGITS: Self = Self::of(b"0123456789");

    /// The given ASCII characters.
    pub(super) const fn of(characters: &[u8]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < characters.len() {
            bits |= 1 << characters[at];
            at += 1;
        }
        Self(bits)
    }

    pub(super) const fn contains(self, byte: u8) -> bool {
        byte.is_ascii() && self.0 >> byte & 1 == 1
    }

    /// The same without `byte`, which is ASCII.
    pub(super) const fn without(self, byte: u8) -> Self {
        Self(self.0 & !(1 << byte))
    }

    const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    fn lowest(self) -> Option<u8> {
        (self.0 != 0).then(|| self.0.trailing_zeros() as u8)
    }
}

/// What one byte of a number can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByteSet {
    /// A byte of fixed text, which may be part of a longer character.
    Exactly(u8),
    /// A character of a variable.
    OneOf(AsciiSet),
}

impl ByteSet {
    pub(super) fn contains(self, byte: u8) -> bool {
        match self {
            Self::Exactly(own) => own == byte,
            Self::OneOf(set) => set.contains(byte),
        }
    }

    /// A byte that is in both.
    pub(super) fn common(self, other: Self) -> Option<u8> {
        match (self, other) {
            (Self::Exactly(byte), set) | (set, Self::Exactly(byte)) => set.contains(byte).then_some(byte),
            (Self::OneOf(own), Self::OneOf(other)) => own.and(other).lowest(),
        }
    }
}

/// What a piece of fixed width can look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape<'a> {
    /// Always this text.
    Text(&'a str),
    /// A decimal number from `min` to `max`, zero-filled to `width` digits, which hold `max`.
    Number { width: u8, min: u32, max: u32 },
    /// `width` characters of a set.
    Characters { width: u8, set: AsciiSet },
}

impl Shape<'_> {
    /// In bytes.
    pub(super) fn width(self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Number { width, .. } | Self::Characters { width, .. } => width.into(),
        }
    }

    /// What the byte at `index` can be, at least: of a number, only the first digit is confined to its range.
    pub(super) fn byte(self, index: usize) -> ByteSet {
        match self {
            Self::Text(text) => ByteSet::Exactly(text.as_bytes()[index]),
            Self::Number { width, min, max } if index == 0 => {
                let scale = 10_u32.pow(u32::from(width) - 1);
                let (low, high) = ((min / scale) as usize, (max / scale) as usize);
                ByteSet::OneOf(AsciiSet::of(&b"0123456789"[low..=high]))
            }
            Self::Number { .. } => ByteSet::OneOf(AsciiSet::DIGITS),
            Self::Characters { set, .. } => ByteSet::OneOf(set),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_what_they_were_made_of() {
        let set = AsciiSet::of(b"0Az~");
        for byte in 0..=u8::MAX {
            assert_eq!(set.contains(byte), b"0Az~".contains(&byte), "{byte}");
        }
        assert!(!set.without(b'0').contains(b'0'));
        assert_eq!(set.lowest(), Some(b'0'));
    }

    #[test]
    fn common_bytes() {
        let digits = ByteSet::OneOf(AsciiSet::DIGITS);
        assert_eq!(digits.common(ByteSet::Exactly(b'7')), Some(b'7'));
        assert_eq!(ByteSet::Exactly(b'A').common(digits), None);
        assert_eq!(ByteSet::Exactly(0xC3).common(ByteSet::Exactly(0xC3)), Some(0xC3));
        assert_eq!(ByteSet::Exactly(0xC3).common(digits), None);
        assert_eq!(digits.common(ByteSet::OneOf(AsciiSet::of(b"AB9"))), Some(b'9'));
        assert_eq!(digits.common(ByteSet::OneOf(AsciiSet::of(b"AB"))), None);
    }

    #[test]
    fn first_digits_keep_to_the_range() {
        let month = Shape::Number { width: 2, min: 1, max: 12 };
        assert_eq!(month.byte(0), ByteSet::OneOf(AsciiSet::of(b"01")));
        assert_eq!(month.byte(1), ByteSet::OneOf(AsciiSet::DIGITS));
        let widest = Shape::Number { width: 10, min: 0, max: u32::MAX };
        assert_eq!(widest.byte(0), ByteSet::OneOf(AsciiSet::of(b"01234")));
    }
}
