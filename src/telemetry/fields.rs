//! The fields of an event or a span, without their secrets.

use std::{error::Error, fmt};

use tracing::field::{Field, Visit};

use crate::scrub::{MASK, names_a_secret, scrub};

/// A value that may be shown.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// What `Debug` or `Display` made of something.
    Shown(String),
    /// A number.
    Number(serde_json::Number),
    /// A truth value.
    Truth(bool),
}

/// Fields in the order in which they were recorded; the message of an event apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields {
    /// The field `message`.
    pub message: Option<String>,
    /// All others.
    pub named: Vec<(&'static str, Value)>,
    /// Where an event of the `log` crate comes from; its own metadata does not say.
    pub log_target: Option<String>,
}

impl Fields {
    /// A later value of a name replaces the earlier one.
    fn set(&mut self, name: &'static str, value: Value) {
        let value = if names_a_secret(name) { Value::Text(MASK.to_owned()) } else { value };
        match self.named.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.named.push((name, value)),
        }
    }

    fn set_shown(&mut self, name: &'static str, text: &str) {
        match name {
            "message" => self.message = Some(scrub(text).into_owned()),
            "log.target" => self.log_target = Some(text.to_owned()),
            "log.module_path" | "log.file" | "log.line" => {}
            _ => self.set(name, Value::Shown(scrub(text).into_owned())),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set_shown(field.name(), &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            name @ ("message" | "log.target" | "log.module_path" | "log.file") => self.set_shown(name, value),
            name => self.set(name, Value::Text(scrub(value).into_owned())),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.set_shown(field.name(), &chain(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() != "log.line" {
            self.set(field.name(), Value::Number(value.into()));
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field.name(), Value::Number(value.into()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // NaN and infinities are no JSON numbers.
        let number = serde_json::Number::from_f64(value);
        self.set(field.name(), number.map_or_else(|| Value::Shown(value.to_string()), Value::Number));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field.name(), Value::Truth(value));
    }
}

/// An error and its causes: `a: b: c`. A cause that the text names already is not repeated.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}
