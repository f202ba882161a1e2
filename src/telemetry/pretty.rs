//! A log line for people: time, level, message, fields, then where it comes from.

use std::fmt::Write;

use tracing::Level;

use super::{
    fields::{Fields, Value},
    log::Line,
};

/// Whether the reader sees colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Palette {
    Plain,
    Coloured,
}

const DIM: &str = "\u{1b}[2m";
const RESET: &str = "\u{1b}[0m";

impl Palette {
    fn paint(self, code: &str, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Coloured => format!("{code}{text}{RESET}"),
        }
    }
}

pub(super) fn line(line: &Line<'_>, palette: Palette) -> String {
    let colour = match line.level {
        Level::ERROR => "\u{1b}[31m",
        Level::WARN => "\u{1b}[33m",
        Level::INFO => "\u{1b}[32m",
        Level::DEBUG => "\u{1b}[34m",
        Level::TRACE => "\u{1b}[35m",
    };
    let time = palette.paint(DIM, &line.time.to_rfc3339());
    let level = palette.paint(colour, &format!("{:>5}", line.level.as_str()));
    let mut text = format!("{time} {level} ");
    push_on_one_line(&mut text, line.fields.message.as_deref().unwrap_or_default());
    push_fields(&mut text, line.fields, " ", palette);
    let mut origin = line.target.to_owned();
    for (name, fields) in line.spans {
        let _ = write!(origin, " {name}");
        let mut inner = String::new();
        push_fields(&mut inner, fields, "", Palette::Plain);
        if !inner.is_empty() {
            let _ = write!(origin, "{{{inner}}}");
        }
    }
    text.push_str("  ");
    text.push_str(&palette.paint(DIM, &origin));
    text
}

fn push_fields(text: &mut String, fields: &Fields, lead: &str, palette: Palette) {
    let mut lead = lead;
    for (name, value) in &fields.named {
        text.push_str(lead);
        text.push_str(&palette.paint(DIM, &format!("{name}=")));
        match value {
            Value::Text(value) => {
                let _ = write!(text, "{value:?}");
            }
            Value::Shown(value) => push_on_one_line(text, value),
            Value::Number(number) => {
                let _ = write!(text, "{number}");
            }
            Value::Truth(truth) => {
                let _ = write!(text, "{truth}");
            }
        }
        lead = " ";
    }
}

/// Control characters are escaped: what a client sends can neither forge a line nor steer a terminal.
fn push_on_one_line(text: &mut String, value: &str) {
    for character in value.chars() {
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
}
