//! The layer that writes log lines.

use std::{fmt, io::Write, sync::Arc};

use tracing::{
    Event, Level, Subscriber,
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    fmt::MakeWriter,
    layer::{Context, Layer},
    registry::LookupSpan,
};

use super::{Style, fields::Fields, json, pretty};
use crate::clock::{Clock, UnixMillis};

/// One event, ready to be formatted: nothing in it is a secret any more.
pub(super) struct Line<'a> {
    pub(super) time: UnixMillis,
    pub(super) level: Level,
    pub(super) target: &'a str,
    pub(super) fields: &'a Fields,
    /// From the outermost span to the innermost.
    pub(super) spans: &'a [(&'static str, Fields)],
}

/// Writes every event as one line, its spans included. Values pass [`Fields`] and nothing else.
pub struct LogLayer<W> {
    style: Style,
    clock: Arc<dyn Clock>,
    writer: W,
}

impl<W> LogLayer<W> {
    /// Lines of `style` to `writer`, with the wall time of `clock`.
    pub fn new(style: Style, clock: Arc<dyn Clock>, writer: W) -> Self {
        Self { style, clock, writer }
    }
}

impl<W> fmt::Debug for LogLayer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogLayer").field("style", &self.style).finish_non_exhaustive()
    }
}

impl<S, W> Layer<S> for LogLayer<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            record.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let spans: Vec<_> = context
            .event_scope(event)
            .map(|scope| {
                let fields_of = |span: tracing_subscriber::registry::SpanRef<'_, S>| {
                    (span.name(), span.extensions().get::<Fields>().cloned().unwrap_or_default())
                };
                scope.from_root().map(fields_of).collect()
            })
            .unwrap_or_default();
        let metadata = event.metadata();
        let line = Line {
            time: self.clock.now(),
            level: *metadata.level(),
            target: fields.log_target.as_deref().unwrap_or(metadata.target()),
            fields: &fields,
            spans: &spans,
        };
        let mut text = match self.style {
            Style::Json => json::line(&line),
            Style::Plain => pretty::line(&line, pretty::Palette::Plain),
            Style::Coloured => pretty::line(&line, pretty::Palette::Coloured),
        };
        text.push('\n');
        // One write per line, so that lines of several processes on one pipe stay whole; a log that cannot be written
        // is no reason to stop issuing numbers.
        let _ = self.writer.make_writer_for(metadata).write_all(text.as_bytes());
    }
}
