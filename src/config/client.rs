//! How the commands that talk to a running service reach it.

use super::{
    error::ConfigError,
    jwt::Jwt,
    parse::{base_url, text},
    section::{Default, Unset, section},
    storage::Storage,
    values::Values,
};
use crate::secret::Secret;

section! {
    /// Where the service is, and who asks.
    Client, "Commands";
    /// The service that next, preview, temporary and import talk to, with or without /api at the end.
    url: String = "NUMGEN_URL", Default("http://127.0.0.1:8080"), base_url(&["http", "https"], "http://127.0.0.1:8080");
    /// The token that they show.
    token: Option<Secret<String>> = "NUMGEN_TOKEN", Unset("one signed with the configured secret"), text().secret();
}

/// All that the commands read; what only the service needs may be wrong.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Where the service is, and who asks.
    pub client: Client,
    /// What a token for it is signed with.
    pub jwt: Jwt,
    /// Where the service keeps its own secret.
    pub storage: Storage,
}

impl ClientConfig {
    /// Reads these sections alone.
    ///
    /// # Errors
    ///
    /// Every mistake in them.
    pub fn read(values: &Values) -> Result<Self, ConfigError> {
        let mut mistakes = Vec::new();
        let client = Client::read(values, &mut mistakes);
        let jwt = Jwt::read(values, &mut mistakes);
        let storage = Storage::read(values, &mut mistakes);
        match (client, jwt, storage) {
            (Some(client), Some(jwt), Some(storage)) => Ok(Self { client, jwt, storage }),
            _ => Err(ConfigError { mistakes }),
        }
    }
}
