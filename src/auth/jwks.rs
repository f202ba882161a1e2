//! Keys from a URL (JWKS, RFC 7517): fetched in the background, at start and every 5 minutes.
//!
//! - The last good set stays in force whatever happens; a set without a single usable key is no good set.
//! - A fetch that failed is tried again after 1 s, 2 s, 4 s ... 60 s, jittered.
//! - A token with an unknown `kid` asks for one fetch, at most once in 10 s; it waits for that fetch, at most 2 s, and is
//!   then judged anew. Asked for too often, it is refused at once: a flood of made-up names costs the issuer nothing.
//! - One task does all of this, so two fetches never overlap.

use std::{
    error::Error,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use jsonwebtoken::jwk::Jwk;
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::keys::{Keyring, VerifyingKey};
use crate::{
    client::{Client, ClientError, Limits},
    clock::{Clock, UnixMillis},
    lifecycle::Lifecycle,
    telemetry::fields::chain,
};

/// How often the set is fetched when nothing calls for it.
pub const REFRESH_EVERY: Duration = Duration::from_mins(5);

/// How far apart fetches for unknown names are, at least.
pub const UNKNOWN_KEY_SPACING: Duration = Duration::from_secs(10);

/// How long a request with an unknown name waits for a fetch.
pub const UNKNOWN_KEY_PATIENCE: Duration = Duration::from_secs(2);

const FETCH_LIMITS: Limits = Limits { deadline: Duration::from_secs(10), body_bytes: 1024 * 1024 };
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LAST_BACKOFF: Duration = Duration::from_mins(1);

/// Why a set could not be fetched. The message never holds the URL, which may carry credentials.
pub type FetchError = Box<dyn Error + Send + Sync>;

/// Where the key set comes from: HTTP in production, a closure in tests.
pub trait KeySource: Send + Sync + 'static {
    /// Fetches the document once; the caller sets a deadline of its own.
    fn fetch(&self) -> Pin<Box<dyn Future<Output = Result<Bytes, FetchError>> + Send + '_>>;
}

/// Fetches a JWKS by HTTP.
pub struct HttpKeys {
    client: Client,
    url: String,
}

impl HttpKeys {
    /// Prepares to fetch `url`; nothing is sent yet.
    ///
    /// # Errors
    ///
    /// `ClientError` if the URL is none, or no root certificates are found for `https`.
    pub fn new(url: &str) -> Result<Self, ClientError> {
        Ok(Self { client: Client::for_url(url)?, url: url.to_owned() })
    }
}

impl KeySource for HttpKeys {
    fn fetch(&self) -> Pin<Box<dyn Future<Output = Result<Bytes, FetchError>> + Send + '_>> {
        Box::pin(async {
            let answer = self.client.get(&self.url, FETCH_LIMITS).await?;
            if answer.status().is_success() {
                Ok(answer.into_body())
            } else {
                Err(format!("the JWKS URL answered {}", answer.status()).into())
            }
        })
    }
}

/// How the key set stands, for `/readyz`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JwksStatus {
    /// When the set in force was last fetched; `None`: never.
    pub fetched_at: Option<UnixMillis>,
    /// How many usable keys it has.
    pub keys: usize,
    /// Why the latest fetch failed; `None`: it succeeded, or is the first and under way.
    pub failure: Option<String>,
}

/// The task's side and the requests' side of fetching.
pub(super) struct Refresher {
    source: Arc<dyn KeySource>,
    keyring: Arc<Keyring>,
    clock: Arc<dyn Clock>,
    desk: Mutex<Desk>,
    wake: Notify,
    /// Changes at the end of each fetch, successful or not.
    status: watch::Sender<JwksStatus>,
}

/// What the task is about to do. `status` changes only under this lock, so that nobody waits for an end that has passed.
struct Desk {
    phase: Phase,
    last_asked: Option<Instant>,
}

#[derive(PartialEq)]
enum Phase {
    Idle,
    Asked,
    Fetching,
}

impl Refresher {
    pub(super) fn new(source: Arc<dyn KeySource>, keyring: Arc<Keyring>, clock: Arc<dyn Clock>) -> Self {
        let desk = Mutex::new(Desk { phase: Phase::Asked, last_asked: None });
        let status = watch::Sender::new(JwksStatus::default());
        Self { source, keyring, clock, desk, wake: Notify::new(), status }
    }

    pub(super) fn status(&self) -> JwksStatus {
        self.status.borrow().clone()
    }

    /// Asks for a fetch because of an unknown name. The receiver changes at its end; `None`: not again so soon.
    pub(super) fn ask(&self) -> Option<watch::Receiver<JwksStatus>> {
        let mut desk = self.desk();
        if desk.phase == Phase::Idle {
            let now = Instant::now();
            if desk.last_asked.is_some_and(|at| now.duration_since(at) < UNKNOWN_KEY_SPACING) {
                return None;
            }
            *desk = Desk { phase: Phase::Asked, last_asked: Some(now) };
            self.wake.notify_one();
        }
        Some(self.status.subscribe())
    }

    /// Fetches until the process drains.
    pub(super) async fn run(self: Arc<Self>, lifecycle: Lifecycle) {
        let mut backoff = FIRST_BACKOFF;
        loop {
            let outcome = tokio::select! {
                outcome = self.fetch() => outcome,
                () = lifecycle.draining() => return,
            };
            let pause = match outcome {
                Ok(()) => {
                    backoff = FIRST_BACKOFF;
                    REFRESH_EVERY
                }
                Err(()) => {
                    let pause = jittered(backoff);
                    backoff = (backoff * 2).min(LAST_BACKOFF);
                    pause
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.wake.notified() => {}
                () = lifecycle.draining() => return,
            }
        }
    }

    /// Fetches once; whoever waits learns of the end.
    async fn fetch(&self) -> Result<(), ()> {
        self.desk().phase = Phase::Fetching;
        let outcome = match tokio::time::timeout(FETCH_LIMITS.deadline, self.source.fetch()).await {
            Ok(Ok(document)) => usable_keys(&document).map_err(FetchError::from),
            Ok(Err(error)) => Err(error),
            Err(_elapsed) => Err("no answer in time".into()),
        };
        let before = self.status();
        let (status, result) = match outcome {
            Ok(keys) => {
                let status =
                    JwksStatus { fetched_at: Some(self.clock.now()), keys: keys.len(), failure: None };
                self.keyring.install(keys);
                if before.failure.is_some() || before.fetched_at.is_none() {
                    tracing::info!(keys = status.keys, "key set (JWKS) fetched");
                }
                (status, Ok(()))
            }
            Err(error) => {
                let failure = chain(&*error);
                if before.failure.is_none() {
                    tracing::warn!(error = %failure, "key set (JWKS) cannot be fetched; the last good one stays");
                }
                (JwksStatus { failure: Some(failure), ..before }, Err(()))
            }
        };
        let mut desk = self.desk();
        desk.phase = Phase::Idle;
        self.status.send_replace(status);
        result
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Between three quarters and all of `pause`, so that nodes which failed together do not return together.
fn jittered(pause: Duration) -> Duration {
    let fraction = getrandom::u32().map_or(1.0, |random| f64::from(random) / f64::from(u32::MAX));
    pause.mul_f64(0.75 + 0.25 * fraction)
}

#[derive(Debug, thiserror::Error)]
enum UselessSet {
    #[error("the document is not a JWKS: an object with an array \"keys\"")]
    Form,
    #[error("none of its {0} keys is a usable RSA (2048 bits or more), P-256 or Ed25519 signing key")]
    Empty(usize),
}

/// Reads a JWKS; keys that are of another kind or for another use are passed over (RFC 7517, section 5).
fn usable_keys(document: &[u8]) -> Result<Vec<VerifyingKey>, UselessSet> {
    #[derive(Deserialize)]
    struct Document {
        keys: Vec<Value>,
    }
    let Document { keys } = serde_json::from_slice(document).map_err(|_other| UselessSet::Form)?;
    let listed = keys.len();
    let usable: Vec<_> = keys
        .into_iter()
        .filter_map(|key| serde_json::from_value::<Jwk>(key).ok())
        .filter_map(|key| VerifyingKey::from_jwk(&key).ok())
        .collect();
    if usable.is_empty() { Err(UselessSet::Empty(listed)) } else { Ok(usable) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::forge::Forge, *};

    #[test]
    fn takes_signing_keys_and_passes_the_rest_over() {
        let forge = Forge::es256();
        let with = |extra: Value| {
            let mut jwk = forge.public_jwk(Some("k"));
            jwk.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            jwk
        };
        for (extra, usable) in [
            (json!({}), true),
            (json!({"use": "sig", "alg": "ES256", "key_ops": ["verify"]}), true),
            (json!({"use": "enc"}), false),
            (json!({"key_ops": ["deriveKey"]}), false),
            (json!({"alg": "ES384"}), false),
            (json!({"alg": "ECDH-ES"}), false),
            (json!({"crv": "P-521"}), false),
            (json!({"x": "AAAA"}), false),
            (json!({"kty": "AKP"}), false),
        ] {
            let document = json!({"keys": [with(extra.clone())]}).to_string();
            assert_eq!(usable_keys(document.as_bytes()).is_ok(), usable, "{extra}");
        }
    }

    #[test]
    fn a_published_symmetric_key_or_a_small_one_is_not_used() {
        let oct = json!({"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "alg": "HS256"});
        let small = Forge::small_rsa_jwk();
        let document = json!({"keys": [oct, small, 7]}).to_string();
        let error = usable_keys(document.as_bytes()).err().unwrap();
        assert!(matches!(error, UselessSet::Empty(3)));
        let mixed = json!({"keys": [small, Forge::rs256().public_jwk(None)]}).to_string();
        assert_eq!(usable_keys(mixed.as_bytes()).unwrap().len(), 1);
    }

    #[test]
    fn other_documents_are_refused() {
        for document in ["", "[]", "{}", "{\"keys\":{}}", "<html>"] {
            assert!(matches!(usable_keys(document.as_bytes()), Err(UselessSet::Form)), "{document}");
        }
    }
}
