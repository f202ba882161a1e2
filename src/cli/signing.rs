//! The secret that this machine can sign with.

use super::error::CliError;
use crate::{
    auth::{Grant, Scopes, mint},
    clock::Clock,
    config::{ClientConfig, existing_signing_secret},
    secret::Secret,
};

/// Who a token of the command line speaks for.
pub(super) const SUBJECT: &str = "cli";

/// Signs `grant` for the issuer and audience of the configuration.
///
/// # Errors
///
/// Another key than a shared secret is configured, or the service was never started with this data directory.
pub(super) fn sign(
    config: &ClientConfig,
    grant: Grant<'_>,
    clock: &dyn Clock,
) -> Result<Secret<String>, CliError> {
    let jwt = &config.jwt;
    let secret = match &jwt.secret {
        Some(secret) => secret.clone(),
        None if jwt.has_key() => {
            return Err(CliError::NoSigningKey { configured: jwt.configured_keys().join(" and ") });
        }
        None => existing_signing_secret(&config.storage.data_dir)?,
    };
    let grant = Grant { issuer: jwt.issuer.as_deref(), audience: jwt.audience.as_deref(), ..grant };
    Ok(mint(&secret, &grant, clock)?)
}

/// A grant to be completed by [`sign`].
pub(super) fn grant(subject: &str, scopes: Scopes, ttl: std::time::Duration) -> Grant<'_> {
    Grant { subject, scopes, ttl, prefixes: None, issuer: None, audience: None }
}
