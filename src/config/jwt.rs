//! How tokens are checked.

use std::path::PathBuf;

use super::{
    parse::{Fault, Parser, path, text, url},
    section::{Unset, section},
};
use crate::secret::Secret;

/// A shared secret shorter than the hash it keys is weaker than it looks (RFC 7518, section 3.2). In bytes.
const MIN_SECRET_LEN: usize = 32;

section! {
    /// Keys and claims of tokens.
    Jwt, "Tokens";
    /// Shared secret for HS256.
    secret: Option<Secret<String>> = "NUMGEN_JWT_SECRET", Unset("with no key at all, one made at the first start and kept in the data directory"), signing_secret().secret();
    /// PEM file with a public key (RSA, P-256 or Ed25519).
    public_key_file: Option<PathBuf> = "NUMGEN_JWT_PUBLIC_KEY_FILE", Unset("none"), path();
    /// URL of a key set, refreshed in the background.
    jwks_url: Option<Secret<String>> = "NUMGEN_JWT_JWKS_URL", Unset("none"), url(&["https", "http"], "https://issuer.example/jwks.json").secret();
    /// Issuer that tokens must name.
    issuer: Option<String> = "NUMGEN_JWT_ISSUER", Unset("not checked"), text();
    /// Audience that tokens must name.
    audience: Option<String> = "NUMGEN_JWT_AUDIENCE", Unset("not checked"), text();
}

impl Jwt {
    /// Whether any key is configured; if none is, the secret of the data directory serves.
    pub fn has_key(&self) -> bool {
        !self.configured_keys().is_empty()
    }

    /// The settings of keys that are configured.
    pub fn configured_keys(&self) -> Vec<&'static str> {
        [
            (self.secret.is_some(), "NUMGEN_JWT_SECRET"),
            (self.public_key_file.is_some(), "NUMGEN_JWT_PUBLIC_KEY_FILE"),
            (self.jwks_url.is_some(), "NUMGEN_JWT_JWKS_URL"),
        ]
        .into_iter()
        .filter_map(|(configured, variable)| configured.then_some(variable))
        .collect()
    }
}

fn signing_secret() -> Parser<String> {
    Parser::explaining(
        format!("text of {MIN_SECRET_LEN} bytes or more, such as openssl rand -hex 32 prints"),
        |text| match text.len() {
            short @ ..MIN_SECRET_LEN => Err(Fault(Some(format!("{short} bytes")))),
            _ => Ok(text.to_owned()),
        },
    )
}
