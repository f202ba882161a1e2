//! Query strings, read like JSON objects whose values are all texts.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::{Invalid, Member, Message, Object};

impl Object {
    /// Reads the query of a URL (`application/x-www-form-urlencoded`): the same spellings, the same errors as in a body.
    ///
    /// # Errors
    ///
    /// `Invalid` where an escape is not UTF-8.
    pub fn parse_query(query: &str) -> Result<Self, Invalid> {
        let mut members = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = decode(name).zip(decode(value));
            let value = decoded.and_then(|(name, value)| {
                let value = serde_json::value::to_raw_value(&value).ok()?;
                Some(Member { name: name.into_owned(), value })
            });
            members.push(value.ok_or_else(|| {
                let name: String = name.chars().take(64).collect();
                Invalid::of(name, Message::new("is not percent-encoded UTF-8", "不是百分号编码的 UTF-8"))
            })?);
        }
        Ok(Self { members, asked: Vec::new(), errors: Vec::new() })
    }
}

fn decode(text: &str) -> Option<Cow<'_, str>> {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        return percent_decode_str(&spaced).decode_utf8().ok().map(|text| Cow::Owned(text.into_owned()));
    }
    percent_decode_str(text).decode_utf8().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_spellings_and_escapes() {
        let mut query = Object::parse_query("prefixKey=A%2FB&number=a+b%2B&count=5").expect("valid");
        assert_eq!(query.text("prefix_key").as_deref(), Some("A/B"));
        assert_eq!(query.text("number").as_deref(), Some("a b+"));
        assert_eq!(query.bounded("count", 1..=10), Some(5));
        query.finish().expect("nothing is wrong");
    }

    #[test]
    fn says_what_is_wrong() {
        assert!(Object::parse_query("a=%FF").is_err());
        let mut query = Object::parse_query("cuont=5").expect("valid");
        assert_eq!(query.bounded("count", 1..=10), None);
        let error = query.finish().expect_err("unknown").to_string();
        assert_eq!(error, "cuont: unknown field; did you mean count?");
    }
}
