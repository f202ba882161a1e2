//! Check digits over the text to the left of `{check:..}`.

/// A check digit algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// ISO/IEC 7812-1, annex B, over the ASCII digits.
    Luhn,
    /// H. M. Damm, "Total anti-symmetrische Quasigruppen" (2004), over the ASCII digits.
    Damm,
    /// ISO 7064 mod 97-10, over ASCII letters (A = 10 to Z = 35, case ignored) and digits.
    Mod97,
}

/// The totally anti-symmetric quasigroup of order 10 from Damm's thesis.
const DAMM: [[u8; 10]; 10] = [
    [0, 3, 1, 7, 5, 9, 8, 6, 4, 2],
    [7, 0, 9, 2, 1, 5, 4, 8, 6, 3],
    [4, 2, 0, 6, 8, 7, 1, 3, 5, 9],
    [1, 7, 5, 0, 9, 8, 3, 4, 2, 6],
    [6, 1, 2, 3, 0, 4, 5, 9, 7, 8],
    [3, 6, 7, 4, 2, 0, 9, 5, 8, 1],
    [5, 8, 6, 9, 7, 2, 0, 1, 3, 4],
    [8, 9, 4, 5, 3, 6, 2, 0, 1, 7],
    [9, 4, 3, 8, 6, 1, 7, 2, 0, 5],
    [2, 5, 8, 1, 4, 3, 6, 7, 9, 0],
];

impl Algorithm {
    /// By its name in a format, in any case.
    pub(super) fn parse(name: &str) -> Option<Self> {
        [("luhn", Self::Luhn), ("damm", Self::Damm), ("mod97", Self::Mod97)]
            .into_iter()
            .find_map(|(known, algorithm)| known.eq_ignore_ascii_case(name).then_some(algorithm))
    }

    /// How many digits it gives.
    pub(super) const fn width(self) -> u8 {
        match self {
            Self::Luhn | Self::Damm => 1,
            Self::Mod97 => 2,
        }
    }

    /// The check digits of `text` as a number; everything that the algorithm does not know is dropped.
    pub(super) fn compute(self, text: &str) -> u32 {
        match self {
            Self::Luhn => luhn(text),
            Self::Damm => damm(text),
            Self::Mod97 => mod97(text),
        }
    }
}

fn digits(text: &str) -> impl DoubleEndedIterator<Item = u8> {
    text.bytes().filter(u8::is_ascii_digit).map(|byte| byte - b'0')
}

fn luhn(text: &str) -> u32 {
    // The check digit will stand to the right, so the last digit is the first to be doubled.
    let sum: u32 = digits(text)
        .rev()
        .zip([2, 1].into_iter().cycle())
        .map(|(digit, weight)| {
            let product = u32::from(digit) * weight;
            product / 10 + product % 10
        })
        .sum();
    (10 - sum % 10) % 10
}

fn damm(text: &str) -> u32 {
    digits(text).fold(0_u8, |interim, digit| DAMM[usize::from(interim)][usize::from(digit)]).into()
}

fn mod97(text: &str) -> u32 {
    let remainder = text.bytes().fold(0, |remainder, byte| match byte {
        b'0'..=b'9' => (remainder * 10 + u32::from(byte - b'0')) % 97,
        b'A'..=b'Z' => (remainder * 100 + u32::from(byte - b'A') + 10) % 97,
        b'a'..=b'z' => (remainder * 100 + u32::from(byte - b'a') + 10) % 97,
        _ => remainder,
    });
    // From 02 to 98: the two digits that make the whole leave 1.
    98 - remainder * 100 % 97
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_vectors() {
        for (algorithm, text, expected) in [
            (Algorithm::Luhn, "7992739871", 3),
            (Algorithm::Luhn, "ORD-7992 739871", 3),
            (Algorithm::Luhn, "", 0),
            (Algorithm::Luhn, "453201511283036", 6),
            (Algorithm::Damm, "572", 4),
            (Algorithm::Damm, "A5-7/2", 4),
            (Algorithm::Damm, "", 0),
            (Algorithm::Mod97, "794", 44),
            (Algorithm::Mod97, "7-9 4é", 44),
            (Algorithm::Mod97, "", 98),
            // IBANs: the account, then the country, then the check digits.
            (Algorithm::Mod97, "WEST12345698765432GB", 82),
            (Algorithm::Mod97, "west12345698765432gb", 82),
            (Algorithm::Mod97, "370400440532013000DE", 89),
        ] {
            assert_eq!(algorithm.compute(text), expected, "{algorithm:?} of {text:?}");
        }
    }

    #[test]
    fn names_in_any_case() {
        assert_eq!(Algorithm::parse("LUHN"), Some(Algorithm::Luhn));
        assert_eq!(Algorithm::parse("damm"), Some(Algorithm::Damm));
        assert_eq!(Algorithm::parse("Mod97"), Some(Algorithm::Mod97));
        assert_eq!(Algorithm::parse("mod11"), None);
    }

    proptest! {
        #[test]
        fn every_single_wrong_digit_is_noticed(text in "[0-9]{1,20}", at in 0_usize..20, other in 0_u8..10) {
            let at = at % text.len();
            let mut wrong = text.clone().into_bytes();
            wrong[at] = b'0' + other;
            let wrong = String::from_utf8(wrong).expect("digits");
            prop_assume!(wrong != text);
            for algorithm in [Algorithm::Luhn, Algorithm::Damm, Algorithm::Mod97] {
                prop_assert_ne!(algorithm.compute(&text), algorithm.compute(&wrong), "{:?}", algorithm);
            }
        }

        #[test]
        fn damm_and_mod97_notice_swapped_neighbours(text in "[0-9]{2,20}", at in 0_usize..20) {
            let at = at % (text.len() - 1);
            let mut swapped = text.clone().into_bytes();
            swapped.swap(at, at + 1);
            let swapped = String::from_utf8(swapped).expect("digits");
            prop_assume!(swapped != text);
            for algorithm in [Algorithm::Damm, Algorithm::Mod97] {
                prop_assert_ne!(algorithm.compute(&text), algorithm.compute(&swapped), "{:?}", algorithm);
            }
        }
    }
}
