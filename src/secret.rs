//! A value that must never be printed.

use std::fmt;

/// Wraps a secret so that `Debug` and `Display` show `****`; `reveal` is the one, searchable way to it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Takes a secret in.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The secret itself: for the call that needs it, never for a log, a span, a metric or an error.
    pub fn reveal(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

impl<T> fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

impl<T> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn neither_debug_nor_display_shows_it() {
        let secret = Secret::new("canary");
        assert_eq!(format!("{secret:?} {secret} {:?}", Some(&secret)), "**** **** Some(****)");
        assert_eq!(*secret.reveal(), "canary");
    }
}
