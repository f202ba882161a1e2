//! How the commands that talk to a running service reach it.

use super::{
    error::ConfigError,
    parse::{open_url, text},
    section::{Default, Unset, section},
    values::Values,
};
use crate::secret::Secret;

section! {
    /// Where the service is, and who asks.
    Client, "Commands";
    /// The service that next, preview and temporary talk to.
    url: String = "NUMGEN_URL", Default("http://127.0.0.1:8080"), open_url(&["http", "https"], "http://127.0.0.1:8080");
    /// The token that they show.
    token: Option<Secret<String>> = "NUMGEN_TOKEN", Unset("one signed with the configured secret"), text().secret();
}

impl Client {
    /// Reads this section alone.
    ///
    /// # Errors
    ///
    /// Every mistake of this section.
    pub fn load(values: &Values) -> Result<Self, ConfigError> {
        let mut mistakes = Vec::new();
        match Self::read(values, &mut mistakes) {
            Some(client) if mistakes.is_empty() => Ok(client),
            _ => Err(ConfigError { mistakes }),
        }
    }
}
