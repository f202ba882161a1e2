//! Makes tokens, for `numgen token` and the demonstration at the first start.

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

use super::{
    keys::{UnfitKey, checked_secret},
    scope::Scopes,
};
use crate::{clock::Clock, secret::Secret};

/// What a new token shall say.
#[derive(Clone, Debug)]
pub struct Grant<'a> {
    /// Who bears it.
    pub subject: &'a str,
    /// What it may do.
    pub scopes: Scopes,
    /// How long it lasts.
    pub ttl: Duration,
    /// Which prefix keys it may touch, as patterns; `None`: all.
    pub prefixes: Option<&'a [String]>,
    /// The configured issuer.
    pub issuer: Option<&'a str>,
    /// The configured audience.
    pub audience: Option<&'a str>,
}

#[derive(Serialize)]
struct Payload<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    sub: &'a str,
    iat: i64,
    exp: i64,
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefixes: Option<&'a [String]>,
}

/// Why no token could be made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The secret cannot serve.
    #[error("NUMGEN_JWT_SECRET: {0}")]
    Secret(#[source] UnfitKey),
    /// A token without a subject would be refused.
    #[error("a token needs a subject")]
    Subject,
    /// Signing failed.
    #[error("the token could not be signed")]
    Signing(#[source] jsonwebtoken::errors::Error),
}

/// Signs a token (HS256) that the service with the same secret accepts.
///
/// # Errors
///
/// `MintError` if the secret is shorter than 32 bytes or the subject is empty.
pub fn mint(
    secret: &Secret<String>,
    grant: &Grant<'_>,
    clock: &dyn Clock,
) -> Result<Secret<String>, MintError> {
    let key = EncodingKey::from_secret(checked_secret(secret).map_err(MintError::Secret)?);
    if grant.subject.is_empty() {
        return Err(MintError::Subject);
    }
    let now = clock.now();
    let payload = Payload {
        iss: grant.issuer,
        aud: grant.audience,
        sub: grant.subject,
        iat: now.0.div_euclid(1_000),
        exp: now.plus(grant.ttl).0.div_euclid(1_000),
        scope: grant.scopes.to_string(),
        prefixes: grant.prefixes,
    };
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &payload, &key)
        .map(Secret::new)
        .map_err(MintError::Signing)
}
