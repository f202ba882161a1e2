//! IDs of requests: the caller's `X-Request-Id` if it is fit to be logged, else one of ours. An ID stands in the answer, in the
//! problem document, in spans and in logs.

use std::fmt;

use http::{HeaderName, HeaderValue};

/// The header, in requests and in answers.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest ID that is taken over from a caller.
const MAX_LEN: usize = 64;

/// How many hexadecimal digits one of ours has.
const DIGITS: usize = 16;

/// A request's ID: bytes in place, so that passing it on allocates nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    bytes: [u8; MAX_LEN],
    len: usize,
}

impl RequestId {
    /// The ID as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }

    /// Takes over what a caller sent, if it is fit to be logged.
    pub(super) fn given(value: &HeaderValue) -> Option<Self> {
        let fit = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
        let given = value.as_bytes();
        if !(1..=MAX_LEN).contains(&given.len()) || !given.iter().all(fit) {
            return None;
        }
        let mut bytes = [0; MAX_LEN];
        bytes[..given.len()].copy_from_slice(given);
        Some(Self { bytes, len: given.len() })
    }

    pub(super) fn to_header(self) -> HeaderValue {
        HeaderValue::from_str(self.as_str()).unwrap_or(HeaderValue::from_static(""))
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// IDs that do not repeat: a random start for each connection, mixed so that they do not look alike (Steele, Lea and
/// Flood, "Fast splittable pseudorandom number generators", 2014). They identify, they protect nothing.
#[derive(Clone, Debug)]
pub(super) struct Sequence {
    state: u64,
}

impl Sequence {
    pub(super) fn new() -> Self {
        let mut bytes = [0; 8];
        // Without random bytes IDs still differ within the connection, which is all that a log needs.
        let _unseeded = getrandom::fill(&mut bytes);
        Self { state: u64::from_ne_bytes(bytes) }
    }

    pub(super) fn next(&mut self) -> RequestId {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        let mut bytes = [0; MAX_LEN];
        for (index, digit) in bytes[..DIGITS].iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(mixed >> (60 - 4 * index)) as usize & 15];
        }
        RequestId { bytes, len: DIGITS }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn takes_over_an_id_that_is_fit_to_be_logged() {
        let given = |text: &str| {
            let value = HeaderValue::from_str(text).expect("valid");
            RequestId::given(&value).map(|id| id.as_str().to_owned())
        };
        assert_eq!(given("abc-123").as_deref(), Some("abc-123"));
        assert_eq!(given(&"x".repeat(64)).map(|id| id.len()), Some(64));
        for unfit in ["a b", "<script>", &"x".repeat(65), ""] {
            assert_eq!(given(unfit), None, "{unfit}");
        }
    }

    #[test]
    fn ids_do_not_repeat() {
        let mut sequence = Sequence::new();
        let ids: HashSet<_> = (0..10_000).map(|_| sequence.next().as_str().to_owned()).collect();
        assert_eq!(ids.len(), 10_000);
    }
}
