//! Strict reading of JSON request bodies.
//!
//! Purpose: say everything that is wrong with a body at once, by field name, in the caller's language, with what would be
//! right. Invariants: a number is read from its text, so nothing passes through a float; no message echoes a value, which may be
//! a secret (`initial_seq`); nothing that was sent is silently ignored, as long as the reader ends with [`Object::finish`].
//!
//! Order of use: [`Object::parse`], one call per known field, `finish`.

use std::{fmt, ops::RangeInclusive};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

mod integer;
mod malformed;
mod message;
mod query;
mod spelling;

use integer::{Flaw, Integer, within};
use malformed::malformed;
use spelling::{is_spelling_of, nearest, snake_case};

pub use malformed::{Kind, Malformed};
pub use message::{FieldError, Invalid, Message};

use crate::language::Localized;

/// One member of the object; repeated ones stand here as often as they were sent.
struct Member {
    name: String,
    value: Box<RawValue>,
}

/// The members in their order. serde's own map types would keep one of several members of the same name.
struct Members(Vec<Member>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry()? {
                    members.push(Member { name, value });
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}

/// A body that is being read. Each reader takes the snake_case name of a field, accepts camelCase as well, counts `null` as
/// absent, and notes what is wrong instead of stopping there.
#[must_use = "call `finish`, or unknown fields and errors go unnoticed"]
pub struct Object {
    members: Vec<Member>,
    asked: Vec<&'static str>,
    errors: Vec<FieldError>,
}

/// Names only: the values may be secret.
impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.members.iter().map(|member| &member.name)).finish()
    }
}

impl Object {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// `Malformed` if it is not one JSON object.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        match serde_json::from_slice::<Members>(bytes) {
            Ok(Members(members)) => Ok(Self { members, asked: Vec::new(), errors: Vec::new() }),
            Err(error) => Err(malformed(bytes, &error)),
        }
    }

    /// A text. U+0000 is in none: not every store can keep it.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        let text = self.any_text(name)?;
        if text.contains('\0') {
            let english = "must not contain the character U+0000";
            self.error(name, Message::new(english, "不得包含字符 U+0000"));
            return None;
        }
        Some(text)
    }

    /// A text of any characters: the caller sees to it which may be there.
    pub fn any_text(&mut self, name: &'static str) -> Option<String> {
        let value = self.take(name)?;
        match Kind::of(&value) {
            Kind::Text => self.decode(name, &value),
            other @ (Kind::Null | Kind::Boolean | Kind::Number | Kind::Array | Kind::Object) => {
                self.error(
                    name,
                    Message::new(
                        format!("must be a string, not {other}"),
                        format!("须为字符串，而不是{}", other.chinese()),
                    ),
                );
                None
            }
        }
    }

    /// Any `u64`: a JSON number without fraction or exponent, or a string of digits.
    pub fn u64(&mut self, name: &'static str) -> Option<u64> {
        let value = self.take(name)?;
        let digits = match Kind::of(&value) {
            Kind::Text => self.decode(name, &value)?,
            Kind::Number | Kind::Null | Kind::Boolean | Kind::Array | Kind::Object => value,
        };
        let flaw = match Integer::read(&digits) {
            Integer::Whole(number) => return Some(number),
            Integer::Flawed(flaw) => flaw,
        };
        let right = Message::new(
            format!("must be a whole number from 0 to {}, as a number or a string of digits", u64::MAX),
            format!("须为 0 至 {} 的整数，可写成数字或数字字符串", u64::MAX),
        );
        self.error(name, flaw.explain(&right));
        None
    }

    /// A whole number within `range`: a JSON number, or a string of digits, as every query has it.
    pub fn bounded(&mut self, name: &'static str, range: RangeInclusive<i64>) -> Option<i64> {
        let value = self.take(name)?;
        let digits = match Kind::of(&value) {
            Kind::Text => self.decode(name, &value)?,
            Kind::Number | Kind::Null | Kind::Boolean | Kind::Array | Kind::Object => value,
        };
        let number = digits.parse().ok().filter(|number| range.contains(number) && !digits.starts_with('+'));
        if number.is_none() {
            self.error(name, within(&range));
        }
        number
    }

    /// A whole number of at least 0, written as a JSON number, for a reader that refuses too small and too large ones with an
    /// error of its own. `usual` is what the message for everything else suggests.
    pub fn unsigned(&mut self, name: &'static str, usual: RangeInclusive<i64>) -> Option<u64> {
        let value = self.take(name)?;
        match (Kind::of(&value), Integer::read(&value)) {
            (Kind::Number, Integer::Whole(number)) => return Some(number),
            (Kind::Number, Integer::Flawed(Flaw::TooLarge)) => return Some(u64::MAX),
            (_, Integer::Whole(_) | Integer::Flawed(_)) => {}
        }
        self.error(name, within(&usual));
        None
    }

    /// One of several words.
    pub fn choice<T: Copy>(&mut self, name: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let word = self.text(name)?;
        if let Some((_, value)) = choices.iter().find(|(choice, _)| *choice == word) {
            return Some(*value);
        }
        let words = choices.iter().map(|(choice, _)| *choice);
        let list = words.clone().collect::<Vec<_>>().join(", ");
        let mut message = Message::new(format!("must be one of {list}"), format!("须为以下之一：{list}"));
        if let Some(near) = nearest(&word, words) {
            message.english.push_str(&format!("; did you mean {near}?"));
            message.chinese.push_str(&format!("；是否想写 {near}？"));
        }
        self.error(name, message);
        None
    }

    /// A text that `parse` understands.
    pub fn parsed<T, E: Localized>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(name)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.error(name, Message::of(&error));
                None
            }
        }
    }

    /// Notes an error that only the caller can see, such as a required field that is missing.
    pub fn error(&mut self, field: &str, message: Message) {
        self.errors.push(FieldError { field: field.to_owned(), message });
    }

    /// Whether an error was noted for a field.
    pub fn has_error(&self, field: &str) -> bool {
        self.errors.iter().any(|error| error.field == field)
    }

    /// Ends the reading: nothing was wrong, and nothing was sent that nobody asked for.
    ///
    /// # Errors
    ///
    /// `Invalid` with everything that was noted, and with every unknown or repeated field.
    pub fn finish(mut self) -> Result<(), Invalid> {
        self.note_repeated();
        self.note_unknown();
        if self.errors.is_empty() { Ok(()) } else { Err(Invalid { errors: self.errors }) }
    }

    fn note_repeated(&mut self) {
        for name in std::mem::take(&mut self.asked) {
            let given = self.members.iter().filter(|member| is_spelling_of(&member.name, name));
            let snake = given.clone().filter(|member| member.name == name).count();
            let all = given.clone().count();
            if all > 1 {
                let message = if snake > 0 && snake < all {
                    let camel = given.map(|member| member.name.as_str()).find(|given| *given != name);
                    let camel = camel.unwrap_or_default().to_owned();
                    Message::new(
                        format!("is given as {name} and as {camel}: keep one of them"),
                        format!("同时以 {name} 和 {camel} 给出，请只保留一个"),
                    )
                } else {
                    Message::new(
                        format!("is given {all} times: keep one"),
                        format!("重复给出 {all} 次，请只保留一个"),
                    )
                };
                self.error(name, message);
            }
            self.asked.push(name);
        }
    }

    fn note_unknown(&mut self) {
        let mut seen: Vec<&str> = Vec::new();
        for Member { name, .. } in &self.members {
            if seen.contains(&name.as_str()) || self.asked.iter().any(|known| is_spelling_of(name, known)) {
                continue;
            }
            seen.push(name);
            let message = match nearest(&snake_case(name), self.asked.iter().copied()) {
                Some(near) => Message::new(
                    format!("unknown field; did you mean {near}?"),
                    format!("未知字段；是否想写 {near}？"),
                ),
                None if self.asked.is_empty() => {
                    Message::new("unknown field; none are known here", "未知字段；此处没有可用字段")
                }
                None => {
                    let known = self.asked.join(", ");
                    Message::new(
                        format!("unknown field; known are: {known}"),
                        format!("未知字段；可用字段：{known}"),
                    )
                }
            };
            // A name is as long as the caller likes; the answer is not.
            self.errors.push(FieldError { field: name.chars().take(64).collect(), message });
        }
    }

    /// The value of the first member of that name, as JSON text; `None` for an absent one and for `null`.
    fn take(&mut self, name: &'static str) -> Option<String> {
        if !self.asked.contains(&name) {
            self.asked.push(name);
        }
        let member = self.members.iter().find(|member| is_spelling_of(&member.name, name))?;
        let json = member.value.get();
        (Kind::of(json) != Kind::Null).then(|| json.to_owned())
    }

    /// The text that a JSON string stands for.
    fn decode(&mut self, name: &'static str, json: &str) -> Option<String> {
        let text = serde_json::from_str(json).ok();
        if text.is_none() {
            let message = Message::new(
                "is not a valid string: check its \\u escapes",
                "不是有效的字符串：请检查 \\u 转义",
            );
            self.error(name, message);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::Language;

    fn object(json: &str) -> Object {
        Object::parse(json.as_bytes()).expect("an object")
    }

    /// `field: message` of every error.
    fn errors(object: Object) -> Vec<String> {
        let errors = object.finish().expect_err("errors").errors;
        errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn reads_both_spellings() {
        for json in [r#"{"prefix_key": "A", "max_seq": 7}"#, r#"{"prefixKey": "A", "maxSeq": "7"}"#] {
            let mut object = object(json);
            assert_eq!(object.text("prefix_key").as_deref(), Some("A"));
            assert_eq!(object.u64("max_seq"), Some(7));
            object.finish().expect("nothing is wrong");
        }
    }

    #[test]
    fn no_text_has_what_a_store_cannot_keep() {
        let mut object = object(r#"{"reason": "a\u0000b"}"#);
        assert_eq!(object.text("reason"), None);
        assert_eq!(errors(object), ["reason: must not contain the character U+0000"]);
        let mut query = Object::parse_query("period=%00").expect("a query");
        assert_eq!(query.text("period"), None);
        assert_eq!(errors(query), ["period: must not contain the character U+0000"]);
    }

    #[test]
    fn null_counts_as_absent() {
        let mut object = object(r#"{"format": null, "count": null}"#);
        assert_eq!(object.text("format"), None);
        assert_eq!(object.bounded("count", 1..=10), None);
        object.finish().expect("nothing is wrong");
    }

    #[test]
    fn u64_is_exact_over_its_whole_range() {
        for (json, expected) in [
            ("0", 0),
            ("9007199254740993", 9_007_199_254_740_993),
            ("18446744073709551615", u64::MAX),
            (r#""18446744073709551615""#, u64::MAX),
            (r#""0042""#, 42),
        ] {
            let mut object = object(&format!(r#"{{"initial_seq": {json}}}"#));
            assert_eq!(object.u64("initial_seq"), Some(expected), "{json}");
            object.finish().expect("nothing is wrong");
        }
    }

    #[test]
    fn refuses_what_is_not_a_u64_and_never_echoes_it() {
        for (json, why) in [
            ("-1", "is negative"),
            ("-0", "is negative"),
            (r#""-77""#, "is negative"),
            ("1.5", "has a fraction"),
            ("-1.5", "has a fraction"),
            ("1e3", "has a fraction or an exponent"),
            ("77.0", "has a fraction"),
            ("18446744073709551616", "is too large"),
            (r#""18446744073709551616""#, "is too large"),
            (r#""x""#, "must be a whole number"),
            (r#""""#, "must be a whole number"),
            (r#"" 77""#, "must be a whole number"),
            (r#""+77""#, "must be a whole number"),
            (r#""٧٧""#, "must be a whole number"),
            ("true", "must be a whole number"),
            ("[77]", "must be a whole number"),
            ("{}", "must be a whole number"),
        ] {
            let mut object = object(&format!(r#"{{"initial_seq": {json}}}"#));
            assert_eq!(object.u64("initial_seq"), None, "{json}");
            let invalid = object.finish().expect_err(json);
            for language in [Language::English, Language::Chinese] {
                let text = invalid.localized(language);
                assert!(text.contains("18446744073709551615"), "{text}");
                assert!(!text.contains("77"), "{text} echoes {json}");
            }
            let text = invalid.to_string();
            assert!(text.starts_with(&format!("initial_seq: {why}")), "{json}: {text}");
        }
    }

    #[test]
    fn bounded_names_its_range() {
        for json in ["0", "11", "-1", "2.0", "1e1", r#""x""#, "99999999999999999999", "null, \"count\": 3"] {
            let mut object = object(&format!(r#"{{"count": {json}}}"#));
            assert_eq!(object.bounded("count", 1..=10), None, "{json}");
            let text = object.finish().expect_err(json).to_string();
            let twice = "count: is given 2 times: keep one";
            assert!(text == "count: must be a whole number from 1 to 10" || text == twice, "{json}: {text}");
        }
        for json in [r#"{"count": 10}"#, r#"{"count": "10"}"#] {
            assert_eq!(object(json).bounded("count", 1..=10), Some(10));
        }
    }

    #[test]
    fn unsigned_leaves_the_upper_end_to_its_reader() {
        let read = |json: &str| object(&format!(r#"{{"seqLength": {json}}}"#)).unsigned("seq_length", 1..=20);
        assert_eq!(read("0"), Some(0));
        assert_eq!(read("21"), Some(21));
        assert_eq!(read("99999999999999999999"), Some(u64::MAX));
        for json in ["-5", "1.5", r#""4""#, "true"] {
            assert_eq!(read(json), None, "{json}");
        }
    }

    #[test]
    fn choices_suggest_the_nearest_word() {
        let choices = [("daily", 1), ("monthly", 2)];
        let mut good = object(r#"{"reset": "monthly"}"#);
        assert_eq!(good.choice("reset", &choices), Some(2));
        for (json, expected) in [
            (r#""montly""#, "reset: must be one of daily, monthly; did you mean monthly?"),
            (r#""Daily""#, "reset: must be one of daily, monthly; did you mean daily?"),
            (r#""sometimes""#, "reset: must be one of daily, monthly"),
            ("3", "reset: must be a string, not a number"),
        ] {
            let mut object = object(&format!(r#"{{"reset": {json}}}"#));
            assert_eq!(object.choice("reset", &choices), None);
            assert_eq!(errors(object), [expected]);
        }
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let mut object = object(
            r#"{"format": 1, "initialSeq": -1, "initial_seq": 2, "seqLenght": 3, "mode": "a", "mode": "a",
                "zzz": 1, "zzz": 2, "PREFIX-KEY": "x"}"#,
        );
        for name in ["format", "prefix_key", "mode"] {
            object.text(name);
        }
        object.u64("initial_seq");
        object.unsigned("seq_length", 1..=20);
        assert_eq!(
            errors(object),
            [
                "format: must be a string, not a number",
                "initial_seq: is negative: it must be a whole number from 0 to 18446744073709551615, \
                 as a number or a string of digits",
                "mode: is given 2 times: keep one",
                "initial_seq: is given as initial_seq and as initialSeq: keep one of them",
                "seqLenght: unknown field; did you mean seq_length?",
                "zzz: unknown field; known are: format, prefix_key, mode, initial_seq, seq_length",
                "PREFIX-KEY: unknown field; did you mean prefix_key?",
            ]
        );
    }

    #[test]
    fn says_where_json_breaks() {
        assert_eq!(Object::parse(b"").err(), Some(Malformed::Empty));
        assert_eq!(Object::parse(b" \n ").err(), Some(Malformed::Empty));
        assert_eq!(Object::parse(b"null").err(), Some(Malformed::NotAnObject(Kind::Null)));
        assert_eq!(Object::parse(b" \"hush\"").err(), Some(Malformed::NotAnObject(Kind::Text)));
        assert_eq!(Object::parse(b"[{}]").err(), Some(Malformed::NotAnObject(Kind::Array)));
        assert_eq!(Object::parse(b"12").err(), Some(Malformed::NotAnObject(Kind::Number)));
        let syntax = |bytes: &[u8]| match Object::parse(bytes) {
            Err(Malformed::Syntax { line, column, .. }) => (line, column),
            other => panic!("{other:?}"),
        };
        assert_eq!(syntax(b"{\n  \"a\": 1,\n  oops\n}"), (3, 3));
        assert_eq!(syntax(b"{\"a\": 01}"), (1, 8));
        assert_eq!(syntax(b"{\"a\": 1"), (1, 7));
        assert_eq!(syntax(b"{} {}"), (1, 4));
        assert_eq!(syntax(b"format=ORD"), (1, 2));
        assert_eq!(syntax(b"{\"a\": \"\xff\"}"), (1, 8));
    }

    #[test]
    fn no_message_about_broken_json_quotes_it() {
        for body in [r#"{"initial_seq": 77x}"#, r#"{"initial_seq": "77}"#, r#"{77: 1}"#, r#"77"#, r#""77""#] {
            let error = Object::parse(body.as_bytes()).expect_err(body);
            for language in [Language::English, Language::Chinese] {
                assert!(!error.localized(language).contains("77"), "{}", error.localized(language));
            }
        }
    }

    #[test]
    fn broken_escapes_are_an_error_of_their_field() {
        let mut object = object(r#"{"format": "\ud800"}"#);
        assert_eq!(object.text("format"), None);
        assert_eq!(errors(object), ["format: is not a valid string: check its \\u escapes"]);
    }
}
