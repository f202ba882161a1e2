//! Logs and traces.

use tracing_subscriber::EnvFilter;

use super::{
    parse::{Fault, Parser, one_of, open_url},
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
    /// Logs and traces.
    Log, "Logs and traces";
    /// What is logged: a level, or levels by module.
    filter: String = "NUMGEN_LOG", Default("info"), filter();
    /// How log lines look.
    format: Option<LogFormat> = "NUMGEN_LOG_FORMAT", Unset("pretty on a terminal, else json"), one_of(FORMATS);
    /// Where traces are sent (OTLP).
    otlp_endpoint: Option<String> = "OTEL_EXPORTER_OTLP_ENDPOINT", Unset("traces are not sent"), open_url(&["http", "https"], "http://collector:4317");
}

fn filter() -> Parser<String> {
    Parser::explaining("filter such as info or info,numgen::store=debug", |text| {
        match EnvFilter::builder().parse(text) {
            Ok(_) => Ok(text.to_owned()),
            Err(error) => Err(Fault(Some(error.to_string()))),
        }
    })
}
