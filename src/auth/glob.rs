//! Which prefix keys a token may touch.

/// The patterns of a `prefixes` claim: `*` stands for any run of characters, `?` for one, everything else for itself.
/// Case matters. No pattern at all matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefixes(Box<[Glob]>);

impl Prefixes {
    /// Takes the patterns as the claim lists them. Blanks around a pattern and empty patterns do not count: no prefix key has any.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Self {
        let patterns = patterns.into_iter().map(str::trim).filter(|pattern| !pattern.is_empty());
        Self(patterns.map(Glob::new).collect())
    }

    /// Reads `A*,B*`.
    pub fn parse(list: &str) -> Self {
        Self::new(list.split(','))
    }

    /// Whether any pattern matches the whole of `text`.
    pub fn matches(&self, text: &str) -> bool {
        self.0.iter().any(|glob| glob.matches(text))
    }

    /// The patterns as text.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|glob| &*glob.pattern)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Glob {
    /// Runs of `*` are folded into one.
    pattern: Box<str>,
    /// The fewest bytes that a match can have.
    shortest: usize,
}

impl Glob {
    fn new(pattern: &str) -> Self {
        let mut folded = String::with_capacity(pattern.len());
        for character in pattern.chars() {
            if character != '*' || !folded.ends_with('*') {
                folded.push(character);
            }
        }
        let shortest = folded.bytes().filter(|&byte| byte != b'*').count();
        Self { pattern: folded.into(), shortest }
    }

    /// Remembers the last star only: an earlier star never needs to take more, so nothing is tried exponentially often.
    /// The work is at most text x pattern, and a text is at most 64 characters long. (R. Cox, "Glob Matching Can Be
    /// Simple And Fast Too".)
    fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.pattern.as_bytes(), text.as_bytes());
        if text.len() < self.shortest {
            return false;
        }
        let (mut p, mut t) = (0, 0);
        let mut retry = None;
        while p < pattern.len() || t < text.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    retry = (t < text.len()).then_some((p, t + 1));
                    p += 1;
                    continue;
                }
                Some(&byte) if t < text.len() && (byte == b'?' || byte == text[t]) => {
                    (p, t) = (p + 1, t + 1);
                    continue;
                }
                Some(_) | None => {}
            }
            // The last star takes one character more.
            let Some((star, next)) = retry else { return false };
            (p, t) = (star, next);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn blanks_and_empty_patterns_do_not_count() {
        for prefixes in [Prefixes::parse(" A* ,, B*,"), Prefixes::new([" A* ", "", "B*"])] {
            assert!(prefixes.iter().eq(["A*", "B*"]), "{prefixes:?}");
        }
    }

    #[test]
    fn stars_and_question_marks() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "ORDERS", true),
            ("A*", "A", true),
            ("A*", "ABC", true),
            ("A*", "a", false),
            ("A*", "BA", false),
            ("*-EU", "ORD-EU", true),
            ("*-EU", "ORD-EU2", false),
            ("O?D", "ORD", true),
            ("O?D", "OD", false),
            ("a**b*c", "aXbYc", true),
            ("*ab*ab", "abab", true),
            ("*ab*ab", "ab", false),
            ("ORDERS", "ORDERS", true),
            ("ORDERS", "ORDERS2", false),
            ("", "ORDERS", false),
            ("[A-Z]*", "ORDERS", false),
        ] {
            assert_eq!(Glob::new(pattern).matches(text), expected, "{pattern:?} on {text:?}");
        }
    }

    #[test]
    fn a_list_matches_if_one_pattern_does_and_an_empty_one_never() {
        let prefixes = Prefixes::parse(" A* , ,B?");
        assert!(prefixes.matches("AB") && prefixes.matches("BC") && !prefixes.matches("C"));
        assert_eq!(prefixes.iter().collect::<Vec<_>>(), ["A*", "B?"]);
        assert!(!Prefixes::parse("").matches("A"));
        assert!(!Prefixes::parse("").matches(""));
    }

    #[test]
    fn a_hostile_pattern_costs_little() {
        let pattern = format!("{}b", "a*".repeat(2_000));
        assert!(!Glob::new(&pattern).matches(&"a".repeat(64)));
        assert!(!Glob::new(&format!("*{}b", "a".repeat(31))).matches(&"a".repeat(64)));
    }

    /// The definition, exponential and obvious.
    fn by_definition(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|from| by_definition(rest, &text[from..])),
            Some((b'?', rest)) => !text.is_empty() && by_definition(rest, &text[1..]),
            Some((byte, rest)) => text.first() == Some(byte) && by_definition(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            prop_assert_eq!(
                Glob::new(&pattern).matches(&text),
                by_definition(pattern.as_bytes(), text.as_bytes())
            );
        }
    }
}
