//! How values are written in columns and read back.
//!
//! Sequence values are all of `u64`, of which `bigint` holds half: they are `numeric(20)`. Moments are `bigint`, in milliseconds since
//! 1970-01-01T00:00:00Z.

use sqlx::{
    Decode, Encode, Postgres, Row, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgHasArrayType, PgRow, PgTypeInfo, PgValueFormat, PgValueRef},
};

use super::failure::Failure;
use crate::{
    clock::UnixMillis,
    counter::{Ranges, SequenceValue},
    prefix_key::PrefixKey,
};

/// The base of the digits of a `numeric` on the wire.
const BASE: u64 = 10_000;

/// As many digits of [`BASE`] as `u64` has at most.
const MOST_DIGITS: usize = 5;

/// The sign of what is not negative.
const POSITIVE: u16 = 0;

/// A sequence value, or any other `u64`, in a column of type `numeric(20)`; `Vec` and slices of it in `numeric[]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Whole(pub(super) u64);

impl From<SequenceValue> for Whole {
    fn from(value: SequenceValue) -> Self {
        Self(value.0)
    }
}

impl From<Whole> for SequenceValue {
    fn from(value: Whole) -> Self {
        Self(value.0)
    }
}

impl Type<Postgres> for Whole {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("NUMERIC")
    }
}

impl PgHasArrayType for Whole {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("_NUMERIC")
    }
}

/// Binary form of `numeric`: number of digits, weight of the first, sign, digits behind the point (16 bits each), then the digits
/// (`numeric_send` of PostgreSQL).
impl Encode<'_, Postgres> for Whole {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let mut digits = [0_u16; MOST_DIGITS];
        let (mut first, mut rest) = (MOST_DIGITS, self.0);
        while rest > 0 {
            first -= 1;
            digits[first] = u16::try_from(rest % BASE)?;
            rest /= BASE;
        }
        let digits = &digits[first..];
        let count = u16::try_from(digits.len())?;
        for field in [count, count.saturating_sub(1), POSITIVE, 0] {
            buffer.extend_from_slice(&field.to_be_bytes());
        }
        for digit in digits {
            buffer.extend_from_slice(&digit.to_be_bytes());
        }
        Ok(IsNull::No)
    }
}

impl Decode<'_, Postgres> for Whole {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        match value.format() {
            PgValueFormat::Text => Ok(Self(value.as_str()?.parse()?)),
            PgValueFormat::Binary => {
                from_binary(value.as_bytes()?).ok_or_else(|| "no integer of 64 bits".into())
            }
        }
    }
}

fn from_binary(bytes: &[u8]) -> Option<Whole> {
    let mut fields = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let (count, weight, sign, _scale) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let digits: Vec<u16> = fields.collect();
    if sign != POSITIVE || digits.len() != usize::from(count) {
        return None;
    }
    if digits.is_empty() {
        return Some(Whole(0));
    }
    // Zeros at the end are left out on the wire; a digit behind the point is no integer.
    let places = usize::from(weight)
        .checked_add(1)
        .filter(|&places| places <= MOST_DIGITS && places >= digits.len())?;
    let padded = digits.iter().copied().chain(std::iter::repeat(0)).take(places);
    let value = padded
        .into_iter()
        .try_fold(0_u64, |value, digit| value.checked_mul(BASE)?.checked_add(u64::from(digit)))?;
    Some(Whole(value))
}

/// Reads a sequence value.
pub(super) fn sequence(row: &PgRow, column: &str) -> Result<SequenceValue, Failure> {
    Ok(row.try_get::<Whole, _>(column)?.into())
}

/// Reads a count from a `bigint`.
pub(super) fn unsigned(row: &PgRow, column: &str) -> Result<u64, Failure> {
    let value: i64 = row.try_get(column)?;
    u64::try_from(value).map_err(|_| Failure::corrupt(format!("a negative {column}")))
}

/// Writes a count that is far from the limit of signed integers, or is cut off there.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Reads a moment.
pub(super) fn moment(row: &PgRow, column: &str) -> Result<UnixMillis, Failure> {
    Ok(UnixMillis(row.try_get(column)?))
}

/// Reads `prefix_key`.
pub(super) fn prefix_key(row: &PgRow) -> Result<PrefixKey, Failure> {
    let text: &str = row.try_get("prefix_key")?;
    PrefixKey::parse(text).map_err(|_| Failure::corrupt("a prefix key that is none"))
}

/// Reads a list of ranges, such as `1-3,7`.
pub(super) fn ranges(row: &PgRow, column: &str) -> Result<Ranges, Failure> {
    word(row, column, |text| text.parse().ok())
}

/// Reads a word of a fixed vocabulary.
pub(super) fn word<T>(row: &PgRow, column: &str, read: impl FnOnce(&str) -> Option<T>) -> Result<T, Failure> {
    let text: &str = row.try_get(column)?;
    read(text).ok_or_else(|| Failure::corrupt(format!("an unknown {column}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn binary(value: u64) -> Vec<u8> {
        let mut buffer = PgArgumentBuffer::default();
        let _ = Whole(value).encode_by_ref(&mut buffer).unwrap();
        buffer.to_vec()
    }

    #[test]
    fn the_wire_form_is_that_of_postgresql() {
        assert_eq!(binary(0), [0; 8]);
        // SELECT numeric_send(10000), numeric_send(12340000); PostgreSQL itself leaves zeros at the end out.
        assert_eq!(from_binary(&[0, 1, 0, 1, 0, 0, 0, 0, 0, 1]), Some(Whole(10_000)));
        assert_eq!(binary(12_345), [0, 2, 0, 1, 0, 0, 0, 0, 0, 1, 0x09, 0x29]);
    }

    #[test]
    fn what_is_no_integer_is_refused() {
        for bytes in [
            &[0, 1, 0, 0, 0x40, 0, 0, 0, 0, 1][..], // -1
            &[0, 0, 0, 0, 0xC0, 0, 0, 0],           // NaN
            &[0, 1, 0xFF, 0xFF, 0, 0, 0, 4, 0, 1],  // 0.0001
            &[0, 1, 0, 5, 0, 0, 0, 0, 0, 1],        // 10^20
            &[0, 5, 0, 4, 0, 0, 0, 0, 0x27, 0x0F, 0x27, 0x0F, 0x27, 0x0F, 0x27, 0x0F, 0x27, 0x0F], // 10^20 - 1
            &[0, 1, 0],
        ] {
            assert_eq!(from_binary(bytes), None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn every_value_comes_back(value in prop_oneof![any::<u64>(), 0..20_000_u64, Just(u64::MAX)]) {
            prop_assert_eq!(from_binary(&binary(value)), Some(Whole(value)));
        }
    }
}
