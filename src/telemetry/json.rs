//! A log line as one JSON object: `timestamp`, `level`, `target`, `message`, the fields, `spans`.

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{
    fields::{Fields, Value},
    log::Line,
};

/// Names that the line itself uses; a field of that name gets a `_` in front.
const RESERVED: [(&str, &str); 4] =
    [("timestamp", "_timestamp"), ("level", "_level"), ("target", "_target"), ("spans", "_spans")];

pub(super) fn line(line: &Line<'_>) -> String {
    // Serializing texts and numbers into a string cannot fail.
    serde_json::to_string(line).unwrap_or_default()
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("timestamp", &self.time.to_rfc3339())?;
        map.serialize_entry("level", self.level.as_str())?;
        map.serialize_entry("target", self.target)?;
        if let Some(message) = &self.fields.message {
            map.serialize_entry("message", message)?;
        }
        for (name, value) in &self.fields.named {
            let renamed =
                RESERVED.iter().find(|(reserved, _)| reserved == name).map_or(*name, |(_, new)| new);
            map.serialize_entry(renamed, value)?;
        }
        if !self.spans.is_empty() {
            let spans: Vec<_> = self.spans.iter().map(|(name, fields)| Span { name, fields }).collect();
            map.serialize_entry("spans", &spans)?;
        }
        map.end()
    }
}

struct Span<'a> {
    name: &'static str,
    fields: &'a Fields,
}

impl Serialize for Span<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("span", self.name)?;
        for (name, value) in &self.fields.named {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) | Self::Shown(text) => serializer.serialize_str(text),
            Self::Number(number) => number.serialize(serializer),
            Self::Truth(truth) => serializer.serialize_bool(*truth),
        }
    }
}
