//! Log lines.

use tracing_subscriber::EnvFilter;

use super::{
    parse::{Fault, Parser, one_of, whole},
    section::{Default, Unset, section},
};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line, for machines.
    Json,
    /// For people.
    Pretty,
}

const FORMATS: &[(&str, LogFormat)] = &[("json", LogFormat::Json), ("pretty", LogFormat::Pretty)];

section! {
    /// Log lines.
    Log, "Logs";
    /// What is logged: a level, or levels by module.
    filter: String = "NUMGEN_LOG", Default("info"), filter();
    /// How log lines look.
    format: Option<LogFormat> = "NUMGEN_LOG_FORMAT", Unset("pretty on a terminal, else json"), one_of(FORMATS);
    /// Of the requests that went well, one in so many has its access line at level info; 0: none (all have it at debug).
    access_sample: u32 = "NUMGEN_LOG_ACCESS_SAMPLE", Default("0"), whole(0..=1_000_000_000);
}

fn filter() -> Parser<String> {
    Parser::explaining("filter such as info or info,numgen::store=debug", |text| {
        match EnvFilter::builder().parse(text) {
            Ok(_) => Ok(text.to_owned()),
            Err(error) => Err(Fault(Some(error.to_string()))),
        }
    })
}
