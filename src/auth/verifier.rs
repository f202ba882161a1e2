//! Verifies tokens.

use std::{fmt, fs, future::Future, io, path::PathBuf, pin::Pin, sync::Arc};

use super::{
    MAX_TOKEN_BYTES,
    cache::Cache,
    claims::Claims,
    jwks::{HttpKeys, JwksStatus, KeySource, Refresher, UNKNOWN_KEY_PATIENCE},
    keys::{Fetched, KeySet, Keyring, UnfitKey, VerifyingKey},
    rejection::Rejection,
    token::{Expected, Parts},
};
use crate::{
    client::ClientError,
    clock::{Clock, UnixMillis},
    config::Jwt,
    lifecycle::Lifecycle,
    secret::Secret,
};

/// How many verified tokens are remembered.
const CACHED_TOKENS: usize = 10_000;

/// Which tokens to accept. At least one of the three kinds of key is needed; each verifies by its own algorithms.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The shared secret of HS256, 32 bytes or more.
    pub secret: Option<Secret<String>>,
    /// A public key in PEM form: RSA for RS256, P-256 for ES256, Ed25519 for EdDSA.
    pub public_key_pem: Option<String>,
    /// Where to fetch further public keys.
    pub jwks_url: Option<Secret<String>>,
    /// The `iss` that a token must name.
    pub issuer: Option<String>,
    /// The audience that must be among a token's `aud`.
    pub audience: Option<String>,
}

/// Why tokens cannot be verified as configured; the message names the setting.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// No key at all.
    #[error(
        "no key to verify tokens with: set NUMGEN_JWT_SECRET, NUMGEN_JWT_PUBLIC_KEY_FILE or NUMGEN_JWT_JWKS_URL"
    )]
    NoKey,
    /// The shared secret cannot serve.
    #[error("NUMGEN_JWT_SECRET: {0}")]
    Secret(#[source] UnfitKey),
    /// The PEM file cannot serve.
    #[error("NUMGEN_JWT_PUBLIC_KEY_FILE: {0}")]
    PublicKey(#[source] UnfitKey),
    /// The PEM file cannot be read.
    #[error("NUMGEN_JWT_PUBLIC_KEY_FILE: cannot read {}: {source}", file.display())]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// The JWKS URL cannot serve.
    #[error("NUMGEN_JWT_JWKS_URL: {0}")]
    Jwks(#[source] ClientError),
}

impl Settings {
    /// Reads the configuration, the PEM file included. Where it names no key at all, add the secret of the data directory.
    ///
    /// # Errors
    ///
    /// `SetupError::Unreadable` names the file.
    pub fn read(jwt: &Jwt) -> Result<Self, SetupError> {
        let read = |file: &PathBuf| {
            fs::read_to_string(file).map_err(|source| SetupError::Unreadable { file: file.clone(), source })
        };
        Ok(Self {
            secret: jwt.secret.clone(),
            public_key_pem: jwt.public_key_file.as_ref().map(read).transpose()?,
            jwks_url: jwt.jwks_url.clone(),
            issuer: jwt.issuer.clone(),
            audience: jwt.audience.clone(),
        })
    }

    /// Whether tokens can be verified so: whatever [`Verifier::start`] would refuse. Nothing is fetched.
    ///
    /// # Errors
    ///
    /// As [`Verifier::start`].
    pub fn check(&self) -> Result<(), SetupError> {
        let fetched = if self.http_keys()?.is_some() { Fetched::Awaited } else { Fetched::Never };
        ConfiguredKeys::new(self, fetched).map(|_usable| ())
    }

    fn http_keys(&self) -> Result<Option<HttpKeys>, SetupError> {
        let url = self.jwks_url.as_ref();
        url.map(|url| HttpKeys::new(url.reveal())).transpose().map_err(SetupError::Jwks)
    }
}

/// Keys that were configured and can serve.
pub struct ConfiguredKeys(Vec<VerifyingKey>);

impl ConfiguredKeys {
    /// There has to be one, unless others are `fetched`.
    fn new(settings: &Settings, fetched: Fetched) -> Result<Self, SetupError> {
        let mut keys = Vec::new();
        if let Some(secret) = &settings.secret {
            keys.push(VerifyingKey::from_secret(secret).map_err(SetupError::Secret)?);
        }
        if let Some(pem) = &settings.public_key_pem {
            keys.push(VerifyingKey::from_pem(pem).map_err(SetupError::PublicKey)?);
        }
        if keys.is_empty() && fetched == Fetched::Never { Err(SetupError::NoKey) } else { Ok(Self(keys)) }
    }
}

/// Verifies tokens against the configured keys. Share it in an `Arc`.
pub struct Verifier {
    keyring: Arc<Keyring>,
    expected: Expected,
    cache: Cache,
    clock: Arc<dyn Clock>,
    refresher: Option<Arc<Refresher>>,
}

/// A second judgement that waits for keys to be fetched.
pub type Reconsideration = Pin<Box<dyn Future<Output = Result<Arc<Claims>, Rejection>> + Send>>;

impl Verifier {
    /// Takes the configured keys and starts fetching the JWKS, if one is configured, on the current runtime.
    ///
    /// # Errors
    ///
    /// `SetupError` if there is no key or one is unfit. A JWKS that cannot be reached is no error: see
    /// [`Verifier::jwks_status`].
    pub fn start(
        settings: &Settings,
        clock: Arc<dyn Clock>,
        lifecycle: &Lifecycle,
    ) -> Result<Arc<Self>, SetupError> {
        let source = settings.http_keys()?.map(|keys| Arc::new(keys) as Arc<dyn KeySource>);
        Self::with_source(settings, source, clock, lifecycle)
    }

    /// As [`Verifier::start`], with another source of keys than HTTP.
    ///
    /// # Errors
    ///
    /// `SetupError` if there is no key or one is unfit.
    pub fn with_source(
        settings: &Settings,
        source: Option<Arc<dyn KeySource>>,
        clock: Arc<dyn Clock>,
        lifecycle: &Lifecycle,
    ) -> Result<Arc<Self>, SetupError> {
        let fetched = if source.is_some() { Fetched::Awaited } else { Fetched::Never };
        let ConfiguredKeys(keys) = ConfiguredKeys::new(settings, fetched)?;
        let keyring = Arc::new(Keyring::new(keys, fetched));
        let refresher = source.map(|source| {
            let refresher = Arc::new(Refresher::new(source, Arc::clone(&keyring), Arc::clone(&clock)));
            lifecycle.spawn(Arc::clone(&refresher).run(lifecycle.clone()));
            refresher
        });
        let expected = Expected { issuer: settings.issuer.clone(), audience: settings.audience.clone() };
        let cache = Cache::new(CACHED_TOKENS);
        Ok(Arc::new(Self { keyring, expected, cache, clock, refresher }))
    }

    /// Takes the secret and the PEM file of other settings, and changes nothing yet.
    ///
    /// # Errors
    ///
    /// `SetupError` if one is unfit, or no key would be left.
    pub fn check(&self, settings: &Settings) -> Result<ConfiguredKeys, SetupError> {
        ConfiguredKeys::new(settings, self.keyring.current().fetched)
    }

    /// Puts other configured keys in force, and leaves what was fetched; answers whether they differ. From then on no token counts
    /// that they do not verify, not even where it was verified before.
    pub fn replace(&self, keys: ConfiguredKeys) -> bool {
        self.keyring.configure(keys.0)
    }

    /// Verifies a token as it stands behind `Bearer`.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with it. After [`Rejection::UnknownKey`] and [`Rejection::KeysUnavailable`] it is worth
    /// asking [`Verifier::reconsider`].
    pub fn verify(&self, token: &str) -> Result<Arc<Claims>, Rejection> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Rejection::Oversize);
        }
        let now = self.clock.now();
        if let Some(claims) = self.cache.get(token.as_bytes(), self.keyring.epoch())
            && claims.holds_at(now)
        {
            return Ok(claims);
        }
        let keys = self.keyring.current();
        let claims = Arc::new(self.examine(token, &keys, now)?);
        if claims.holds_at(now) {
            self.cache.insert(token.as_bytes(), keys.epoch, Arc::clone(&claims));
        }
        Ok(claims)
    }

    fn examine(&self, token: &str, keys: &KeySet, now: UnixMillis) -> Result<Claims, Rejection> {
        let parts = Parts::parse(token)?;
        let picked = keys.pick(parts.algorithm, parts.kid.as_deref())?;
        picked.key.verify(parts.signed.as_bytes(), parts.signature).map_err(|_unfit| picked.otherwise)?;
        parts.claims(&self.expected, now)
    }

    /// A second chance for a token whose key is unknown: waits for the fetch that is under way or due, at most for
    /// [`UNKNOWN_KEY_PATIENCE`], and verifies once more. `None`: no fetch is due, the rejection stands.
    pub fn reconsider(self: &Arc<Self>, rejection: Rejection, token: &str) -> Option<Reconsideration> {
        if !matches!(rejection, Rejection::UnknownKey | Rejection::KeysUnavailable) {
            return None;
        }
        let mut fetch = self.refresher.as_ref()?.ask()?;
        let (verifier, token) = (Arc::clone(self), Secret::new(Box::<str>::from(token)));
        Some(Box::pin(async move {
            // Whether it ended in time, well or badly: the keys in force now decide.
            let _ended = tokio::time::timeout(UNKNOWN_KEY_PATIENCE, fetch.changed()).await;
            verifier.verify(token.reveal())
        }))
    }

    /// Changes whenever keys change; what was verified under another epoch must be verified again.
    pub fn epoch(&self) -> u64 {
        self.keyring.epoch()
    }

    /// The clock that tokens are measured against.
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// How the JWKS stands; `None`: none is configured.
    pub fn jwks_status(&self) -> Option<JwksStatus> {
        self.refresher.as_ref().map(|refresher| refresher.status())
    }
}

/// Says nothing of the keys.
impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("expected", &self.expected).finish_non_exhaustive()
    }
}
