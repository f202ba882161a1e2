//! The guard of a conditional write.

/// An `If-Match` field (RFC 9110, section 13.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IfMatch {
    /// `*`: there must be a rule, whichever.
    Any,
    /// The rule's `ETag` must be one of these.
    Tags(Vec<String>),
}

impl IfMatch {
    /// Reads the field. The comparison is strong, so a weak tag matches nothing, and neither does what is no tag: a guard that is not
    /// understood must not let a write pass.
    pub fn parse(field: &str) -> Self {
        if field.trim() == "*" {
            return Self::Any;
        }
        Self::Tags(field.split(',').map(|tag| tag.trim().to_owned()).collect())
    }

    /// Whether a write to a rule with this `ETag` may go on; `None`: there is no rule.
    pub(super) fn admits(&self, etag: Option<&str>) -> bool {
        match (self, etag) {
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::Tags(tags), Some(etag)) => tags.iter().any(|tag| tag == etag),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::IfMatch;

    #[test]
    fn compares_strongly() {
        let admits = |field, etag| IfMatch::parse(field).admits(etag);
        assert!(admits("\"7\"", Some("\"7\"")));
        assert!(admits(" \"6\" ,\"7\"", Some("\"7\"")));
        assert!(admits("*", Some("\"7\"")));
        for field in ["*", "\"7\""] {
            assert!(!admits(field, None), "{field} without a rule");
        }
        for field in ["\"8\"", "W/\"7\"", "7", ""] {
            assert!(!admits(field, Some("\"7\"")), "{field}");
        }
    }
}
