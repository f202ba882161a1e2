//! From the text of a setting to its value. Each parser says what it expects, bounds and unit included, so that help,
//! README and errors cannot differ.

use std::{fmt::Display, net::SocketAddr, ops::RangeInclusive, path::PathBuf, str::FromStr, time::Duration};

use super::duration::{parse_duration, print_duration};
use crate::secret::Secret;

/// What is wrong with a text, beyond not being what is expected. Never holds the text itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fault(pub(super) Option<String>);

type ParseFn<T> = Box<dyn Fn(&str) -> Result<T, Fault>>;

/// Turns text into a `T`, and can say what text it takes.
pub(super) struct Parser<T> {
    pub(super) expects: String,
    pub(super) secret: bool,
    parse: ParseFn<T>,
}

impl<T: 'static> Parser<T> {
    pub(super) fn new(expects: impl Into<String>, parse: impl Fn(&str) -> Option<T> + 'static) -> Self {
        Self::explaining(expects, move |text| parse(text).ok_or_else(Fault::default))
    }

    pub(super) fn explaining(
        expects: impl Into<String>,
        parse: impl Fn(&str) -> Result<T, Fault> + 'static,
    ) -> Self {
        Self { expects: expects.into(), secret: false, parse: Box::new(parse) }
    }

    /// The same for a value that must never be shown: the only way to a `Secret` field, so that the type of a field and
    /// how its errors print cannot differ.
    pub(super) fn secret(self) -> Parser<Secret<T>> {
        let parse = self.parse;
        Parser {
            expects: self.expects,
            secret: true,
            parse: Box::new(move |text| parse(text).map(Secret::new)),
        }
    }
}

impl<T> Parser<T> {
    pub(super) fn parse(&self, text: &str) -> Result<T, Fault> {
        (self.parse)(text)
    }
}

/// Address and port.
pub(super) fn address() -> Parser<SocketAddr> {
    Parser::new("address and port, such as 127.0.0.1:8080", |text| text.parse().ok())
}

/// A path; whether it exists is found out by whoever opens it.
pub(super) fn path() -> Parser<PathBuf> {
    Parser::new("path", |text| (!text.is_empty()).then(|| PathBuf::from(text)))
}

/// Any text but none.
pub(super) fn text() -> Parser<String> {
    Parser::new("text", |text| (!text.trim().is_empty()).then(|| text.to_owned()))
}

/// A whole number within bounds. `_` may group digits, as in TOML.
pub(super) fn whole<T>(bounds: RangeInclusive<T>) -> Parser<T>
where
    T: Copy + Display + FromStr + PartialOrd + 'static,
{
    let expects = format!("whole number from {} to {}", bounds.start(), bounds.end());
    Parser::new(expects, move |text| {
        let digits = text.trim().replace('_', "");
        digits
            .parse()
            .ok()
            .filter(|value| digits.bytes().all(|b| b.is_ascii_digit()) && bounds.contains(value))
    })
}

/// Milliseconds as a bare number, for the settings whose names end in `_MS`.
pub(super) fn millis(bounds: RangeInclusive<u64>) -> Parser<Duration> {
    let number = whole(bounds);
    Parser::explaining(format!("{} (milliseconds)", number.expects), move |text| {
        number.parse(text).map(Duration::from_millis)
    })
}

/// A duration with its unit: `24h`, `90s`, `500ms`.
pub(super) fn duration(bounds: RangeInclusive<Duration>) -> Parser<Duration> {
    let expects = format!(
        "duration from {} to {}, such as 1h30m, 90s or 500ms",
        print_duration(*bounds.start()),
        print_duration(*bounds.end())
    );
    Parser::new(expects, move |text| parse_duration(text).filter(|value| bounds.contains(value)))
}

/// One of a few words.
pub(super) fn one_of<T: Copy + 'static>(words: &'static [(&'static str, T)]) -> Parser<T> {
    let list: Vec<_> = words.iter().map(|(word, _)| *word).collect();
    Parser::new(list.join(" or "), move |text| {
        words.iter().find(|(word, _)| *word == text.trim()).map(|(_, value)| *value)
    })
}

/// Items between commas; an empty text is the empty list.
pub(super) fn list<T: 'static>(item: Parser<T>) -> Parser<Vec<T>> {
    Parser::explaining(format!("comma-separated list of {}", item.expects), move |text| {
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(|part| item.parse(part)).collect()
    })
}

/// A URL without user and password, which may therefore be shown.
pub(super) fn open_url(schemes: &'static [&'static str], example: &'static str) -> Parser<String> {
    let any = url(schemes, example);
    Parser::explaining(any.expects.clone(), move |text| {
        let url = any.parse(text)?;
        if url.contains('@') { Err(Fault(Some("without user and password".to_owned()))) } else { Ok(url) }
    })
}

/// The same for what a path is appended to.
pub(super) fn base_url(schemes: &'static [&'static str], example: &'static str) -> Parser<String> {
    let open = open_url(schemes, example);
    Parser::explaining(open.expects.clone(), move |text| {
        let url = open.parse(text)?;
        if url.contains(['?', '#']) {
            Err(Fault(Some("without query and fragment".to_owned())))
        } else {
            Ok(url)
        }
    })
}

/// A URL with one of these schemes and a host.
pub(super) fn url(schemes: &'static [&'static str], example: &'static str) -> Parser<String> {
    Parser::new(format!("URL such as {example}"), move |text| {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        let host = authority.rsplit('@').next()?;
        let clean = !text.contains(|c: char| c.is_whitespace() || c.is_control());
        (clean && schemes.iter().any(|known| scheme.eq_ignore_ascii_case(known)) && !host.is_empty())
            .then(|| text.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_stay_within_their_bounds() {
        let parser = whole(1_u32..=1000);
        assert_eq!(parser.expects, "whole number from 1 to 1000");
        assert_eq!(parser.parse("1_000"), Ok(1000));
        for wrong in ["0", "1001", "-1", "+5", "1.0", "", " ", "many", "99999999999999999999"] {
            assert!(parser.parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn urls_need_scheme_and_host() {
        let parser = url(&["http", "https"], "https://example.org");
        for right in ["https://example.org", "HTTP://[::1]:8080/x?y", "http://u:p@host"] {
            assert!(parser.parse(right).is_ok(), "{right}");
        }
        for wrong in ["example.org", "ftp://example.org", "http://", "http:///x", "http://u@/", "http://a b"]
        {
            assert!(parser.parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_list_may_be_empty_but_each_item_must_be_right() {
        let parser = list(whole(1_u8..=9));
        assert_eq!(parser.parse(""), Ok(vec![]));
        assert_eq!(parser.parse("1, 2,3,"), Ok(vec![1, 2, 3]));
        assert!(parser.parse("1,x").is_err());
    }
}
