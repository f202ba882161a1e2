//! Takes secrets out of text that people will read: logs, error messages, panic messages.
//!
//! Invariant: what looks like a secret is replaced, never shortened; text without one is returned as it is, without
//! an allocation. This is the net under the types that print `****` themselves ([`crate::secret::Secret`]).
//!
//! Three things are looked for: user info in URLs (`redis://:pw@host`), tokens in JWT form (`eyJ...`) or behind
//! `Bearer`, and values behind a name that [`names_a_secret`], as `Debug`, JSON, a query or a header would show them.

use std::borrow::Cow;

/// What stands in place of a secret, everywhere.
pub const MASK: &str = "****";

/// Names, in lower case without `_` and `-`, that are secret wherever they occur in a field's name.
const SECRET_PARTS: [&str; 9] = [
    "initialseq",
    "password",
    "passwd",
    "secret",
    "authorization",
    "cookie",
    "credential",
    "apikey",
    "privatekey",
];

/// Names that are secret at the end of a field's name: `access_token`, but not `token_count`.
const SECRET_ENDINGS: [&str; 2] = ["token", "jwt"];

/// Names whose value goes even behind a colon in the middle of a sentence.
const NEVER_PROSE: [&str; 4] = ["initialseq", "password", "authorization", "cookie"];

/// Whether a field of this name holds a secret: `initial_seq`, `jwtSecret`, `http.authorization`, `access_token`...
pub fn names_a_secret(name: &str) -> bool {
    let plain = plain(name);
    SECRET_PARTS.iter().any(|part| plain.contains(part))
        || SECRET_ENDINGS.iter().any(|ending| plain.ends_with(ending))
}

fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '_' | '-')).map(|c| c.to_ascii_lowercase()).collect()
}

/// `text` without its secrets.
pub fn scrub(text: &str) -> Cow<'_, str> {
    let mut clean = String::new();
    let mut kept = 0; // everything before is in `clean`
    let mut at = 0;
    while let Some(secret) = find_secret(text, at) {
        clean.push_str(&text[kept..secret.span.start]);
        clean.extend([secret.quote, MASK, secret.quote]);
        kept = secret.span.end;
        at = secret.span.end;
    }
    if clean.is_empty() {
        return Cow::Borrowed(text);
    }
    clean.push_str(&text[kept..]);
    Cow::Owned(clean)
}

type Span = std::ops::Range<usize>;

/// What is to be masked, and the quotes that the mask then needs so that JSON stays JSON.
struct Found {
    span: Span,
    quote: &'static str,
}

impl From<Span> for Found {
    fn from(span: Span) -> Self {
        Self { span, quote: "" }
    }
}

/// The first secret that starts at or behind `from`.
fn find_secret(text: &str, from: usize) -> Option<Found> {
    let bytes = text.as_bytes();
    let mut at = from;
    while at < bytes.len() {
        let found = match bytes[at] {
            b':' if bytes[at..].starts_with(b"://") => user_info(bytes, at + 3).map(Found::from),
            b':' | b'=' => named_value(text, at, from),
            b'e' if starts_a_word(bytes, at) => jwt(bytes, at).map(Found::from),
            b'B' | b'b' if starts_a_word(bytes, at) => bearer(bytes, at).map(Found::from),
            _ => None,
        };
        match found {
            // Already masked: pass it, or the search would never end.
            Some(found) if &text[found.span.clone()] == MASK => at = found.span.end,
            Some(found) => return Some(found),
            None => at += 1,
        }
    }
    None
}

fn starts_a_word(bytes: &[u8], at: usize) -> bool {
    at == 0 || !is_base64url(bytes[at - 1])
}

fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// `user:password` of the authority that starts at `start`: up to its last `@`, since a password may hold one (RFC 3986,
/// section 3.2.1, forbids it, people write it).
fn user_info(bytes: &[u8], start: usize) -> Option<Span> {
    let ends = |b: u8| {
        b.is_ascii_whitespace() || matches!(b, b'/' | b'?' | b'#' | b'"' | b'\'' | b'<' | b'>' | b'`')
    };
    let authority = bytes[start..].iter().position(|&b| ends(b)).map_or(bytes.len(), |n| start + n);
    // A password with an unescaped slash: look on to the end of the word.
    let blank = |b: u8| b.is_ascii_whitespace() || matches!(b, b'"' | b'\'' | b'<' | b'>' | b'`');
    let word = bytes[start..].iter().position(|&b| blank(b)).map_or(bytes.len(), |n| start + n);
    let last_at = |end: usize| bytes[start..end].iter().rposition(|&b| b == b'@').map(|n| start + n);
    let end = last_at(authority).or_else(|| {
        let at = last_at(word)?;
        bytes[start..authority].contains(&b':').then_some(at)
    })?;
    (end > start).then_some(start..end)
}

/// Three base64url parts of which the first begins with `eyJ`, which is `{"` (RFC 7519, section 3).
fn jwt(bytes: &[u8], start: usize) -> Option<Span> {
    if !bytes[start..].starts_with(b"eyJ") {
        return None;
    }
    let mut end = start;
    for part in 0..3 {
        let length = bytes[end..].iter().take_while(|&&b| is_base64url(b)).count();
        // The last part may be empty (alg none) or cut off by a log limit.
        if length == 0 && part < 2 {
            return None;
        }
        end += length;
        match bytes.get(end) {
            Some(b'.') if part < 2 => end += 1,
            _ if part < 1 => return None,
            _ => break,
        }
    }
    Some(start..end)
}

/// The credentials behind the scheme `Bearer` (RFC 6750, section 2.1), in any case.
fn bearer(bytes: &[u8], start: usize) -> Option<Span> {
    let scheme = bytes.get(start..start + 6)?;
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return None;
    }
    let spaces = bytes[start + 6..].iter().take_while(|&&b| b == b' ').count();
    let value = start + 6 + spaces;
    let allowed = |b: u8| is_base64url(b) || matches!(b, b'.' | b'~' | b'+' | b'/' | b'=');
    let length = bytes[value..].iter().take_while(|&&b| allowed(b)).count();
    // Shorter words are prose: "bearer token".
    (spaces > 0 && length >= 16).then_some(value..value + length)
}

/// The value behind `name:`, `name=`, `"name":` where the name is a secret one and ends directly before `separator`.
fn named_value(text: &str, separator: usize, from: usize) -> Option<Found> {
    let bytes = text.as_bytes();
    let before = text[from..separator].trim_end_matches([' ', '\\', '"', '\'']);
    let quoted = text[from..separator].ends_with(['"', '\'']);
    let name_start = from
        + before
            .rfind(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-')))
            .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
    let name = &text[name_start..from + before.len()];
    if name.is_empty() || !names_a_secret(name) {
        return None;
    }
    if bytes[separator] == b':' && !quoted {
        // "invalid token: it has expired" is prose; `Claims { token: "..." }` is not.
        let lead = text[..name_start].trim_end();
        let in_a_structure =
            lead.is_empty() || lead.ends_with(['{', ',', '(', '[']) || text[..name_start].ends_with('\n');
        let plain = plain(name);
        if !in_a_structure && !NEVER_PROSE.iter().any(|part| plain.contains(part)) {
            return None;
        }
    }
    let blanks = bytes[separator + 1..].iter().take_while(|&&b| b == b' ').count();
    let start = separator + 1 + blanks;
    let end = value_end(text, start, name);
    let value = &text[start..end];
    for quote in ["\\\"", "\""] {
        // The quotes of a value stay; a bare value under a quoted name gets the quotes of the name.
        if let Some(inner) = value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            let start = start + quote.len();
            return (!inner.is_empty()).then_some(Found { span: start..start + inner.len(), quote: "" });
        }
        if !value.is_empty() && value != MASK && text[..separator].ends_with(quote) {
            return Some(Found { span: start..end, quote });
        }
    }
    (end > start).then_some(Found { span: start..end, quote: "" })
}

/// Where the value that starts at `start` ends: its closing quote or bracket, or the next separator.
fn value_end(text: &str, start: usize, name: &str) -> usize {
    let bytes = text.as_bytes();
    let is_header = plain(name).contains("authorization") || plain(name).contains("cookie");
    let mut depth = 0_usize;
    let mut at = start;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = closing_quote(bytes, at),
            b'\\' if bytes.get(at + 1) == Some(&b'"') => at = closing_escaped_quote(text, at),
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' if depth == 0 => return at,
            b')' | b']' | b'}' => depth -= 1,
            b'\n' | b'\r' if depth == 0 => return at,
            b',' | b'&' | b';' | b' ' | b'\t'
                if depth == 0 && !(is_header && matches!(bytes[at], b' ' | b';' | b',')) =>
            {
                return at;
            }
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// Position of the quote that closes the one at `open`; the last byte when none does.
fn closing_quote(bytes: &[u8], open: usize) -> usize {
    let mut at = open + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'"' => return at,
            _ => {}
        }
        at += 1;
    }
    bytes.len() - 1
}

/// The same for JSON inside a quoted string, where quotes look like `\"`.
fn closing_escaped_quote(text: &str, open: usize) -> usize {
    text[open + 2..].find("\\\"").map_or(text.len() - 1, |n| open + 2 + n + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for secret in [
            "initial_seq",
            "initialSeq",
            "rule.initial_seq",
            "jwt_secret",
            "Authorization",
            "set-cookie",
            "token",
        ] {
            assert!(names_a_secret(secret), "{secret}");
        }
        for open in ["prefix_key", "sequence", "token_count", "number", "url", "max_seq"] {
            assert!(!names_a_secret(open), "{open}");
        }
    }

    #[test]
    fn every_form_of_a_secret_is_masked() {
        for (text, expected) in [
            ("redis://:pw@host:6379/0", "redis://****@host:6379/0"),
            ("cannot reach postgres://u:p@ss@db/x now", "cannot reach postgres://****@db/x now"),
            ("postgres://u:p/w@db/x", "postgres://****@db/x"),
            (
                "see https://example.org/a@b and https://example.org:80/x",
                "see https://example.org/a@b and https://example.org:80/x",
            ),
            ("got eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln!", "got ****!"),
            ("cut off eyJhbGciOiJIUzI1NiJ9.eyJzdWIiO", "cut off ****"),
            ("eyJ alone is nothing", "eyJ alone is nothing"),
            ("bearer 0123456789abcdef0123", "bearer ****"),
            ("a bearer token is missing", "a bearer token is missing"),
            (
                "Draft { initial_seq: Some(SequenceValue(1000)), max: 1 }",
                "Draft { initial_seq: ****, max: 1 }",
            ),
            (r#"{"initial_seq":1000,"max_seq":5}"#, r#"{"initial_seq":"****","max_seq":5}"#),
            (r#"{"initialSeq": "1000"}"#, r#"{"initialSeq": "****"}"#),
            (r#""{\"initial_seq\":\"1000\",\"a\":1}""#, r#""{\"initial_seq\":\"****\",\"a\":1}""#),
            (r#"{\"initial_seq\":1000,\"a\":1}"#, r#"{\"initial_seq\":\"****\",\"a\":1}"#),
            (r#"{"password":"","a":["x"],"token":null}"#, r#"{"password":"","a":["x"],"token":"****"}"#),
            ("GET /x?token=abc&a=1", "GET /x?token=****&a=1"),
            ("Claims { token: \"a, b\", sub: 1 }", "Claims { token: \"****\", sub: 1 }"),
            ("invalid token: it has expired", "invalid token: it has expired"),
            ("Authorization: Basic dTpw\nHost: a", "Authorization: ****\nHost: a"),
            ("Secret { password: [1, 2] }", "Secret { password: **** }"),
        ] {
            assert_eq!(scrub(text), expected);
            assert_eq!(scrub(expected), expected, "scrubbing twice changes nothing");
        }
    }

    #[test]
    fn text_without_a_secret_is_not_copied() {
        assert!(matches!(scrub("listening on 127.0.0.1:8080, größer: ja"), Cow::Borrowed(_)));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived_and_scrubbing_is_idempotent(text in "\\PC*|[a-z:=\"{}(),@/ ]*(token|secret|://|eyJa.b)[a-z:=\"{}(),@/ \\\\é]*") {
            let once = scrub(&text).into_owned();
            proptest::prop_assert_eq!(scrub(&once).into_owned(), once.clone());
        }
    }
}
