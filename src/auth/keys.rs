//! Keys, each pinned to the one algorithm that it verifies (RFC 8725, section 3.1).

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey};
use jsonwebtoken::{
    DecodingKey, DecodingKeyKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};

use super::rejection::Rejection;
use crate::secret::Secret;

/// The fewest bytes of an HS256 secret (RFC 7518, section 3.2).
pub const MIN_SECRET_BYTES: usize = 32;

/// The smallest and the largest RSA modulus, in bits (RFC 7518, section 3.3; what the verifier can take).
const RSA_MODULUS_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A signature algorithm that is understood; `none` is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Hs256,
    Rs256,
    Es256,
    EdDsa,
}

impl Algorithm {
    /// Reads `alg`, in which case matters (RFC 7515, section 4.1.1).
    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name {
            "HS256" => Some(Self::Hs256),
            "RS256" => Some(Self::Rs256),
            "ES256" => Some(Self::Es256),
            "EdDSA" => Some(Self::EdDsa),
            _ => None,
        }
    }

    const fn jose(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

/// Why a key cannot serve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnfitKey {
    /// The shared secret is too short to resist guessing.
    #[error("the secret has {bytes} bytes, HS256 needs {MIN_SECRET_BYTES} or more (RFC 7518, section 3.2)")]
    ShortSecret {
        /// How many bytes it has.
        bytes: usize,
    },
    /// The file holds no PEM block, or several.
    #[error("expected one PEM block with a public key, found {blocks}")]
    PemBlocks {
        /// How many it holds.
        blocks: usize,
    },
    /// The PEM block is something else than a public key.
    #[error("expected BEGIN PUBLIC KEY, found BEGIN {label}; verifying takes the public key alone")]
    PemLabel {
        /// What it says that it is.
        label: String,
    },
    /// Another kind of key, or a damaged one.
    #[error("not a usable RSA, P-256 or Ed25519 public key")]
    Unsupported,
    /// The RSA modulus is outside what is safe and supported.
    #[error("the RSA key has {bits} bits, RS256 needs {} to {}", RSA_MODULUS_BITS.start(), RSA_MODULUS_BITS.end())]
    RsaSize {
        /// How many bits its modulus has.
        bits: usize,
    },
    /// A key of a JWKS that is published for something else than signatures by its algorithm.
    #[error("the key is not for verifying signatures")]
    Purpose,
}

/// A key, the one algorithm that it verifies and the name under which a JWKS lists it.
#[derive(Clone)]
pub(super) struct VerifyingKey {
    algorithm: Algorithm,
    kid: Option<Box<str>>,
    key: DecodingKey,
}

impl VerifyingKey {
    /// Takes a shared secret, for HS256.
    pub(super) fn from_secret(secret: &Secret<String>) -> Result<Self, UnfitKey> {
        let secret = checked_secret(secret)?;
        Ok(Self { algorithm: Algorithm::Hs256, kid: None, key: DecodingKey::from_secret(secret) })
    }

    /// Takes a public key in PEM form; its kind decides the algorithm.
    pub(super) fn from_pem(pem: &str) -> Result<Self, UnfitKey> {
        const BEGIN: &str = "-----BEGIN ";
        let blocks = pem.matches(BEGIN).count();
        let label = pem.split_once(BEGIN).and_then(|(_, rest)| rest.split_once("-----"));
        let (1, Some((label, _))) = (blocks, label) else { return Err(UnfitKey::PemBlocks { blocks }) };
        // Checked here, because the decoder would also take the first bit string of a certificate or a private key.
        if !matches!(label, "PUBLIC KEY" | "RSA PUBLIC KEY") {
            return Err(UnfitKey::PemLabel { label: label.to_owned() });
        }
        let decoded = DecodingKey::from_rsa_pem(pem.as_bytes())
            .or_else(|_not_rsa| DecodingKey::from_ec_pem(pem.as_bytes()))
            .or_else(|_not_ec| DecodingKey::from_ed_pem(pem.as_bytes()))
            .map_err(|_not_ed| UnfitKey::Unsupported)?;
        let jwk = Jwk::from_decoding_key(&decoded, None).map_err(|_damaged| UnfitKey::Unsupported)?;
        Self::from_jwk(&jwk)
    }

    /// Takes a key of a JWKS (RFC 7517) if it is there to verify signatures by its algorithm.
    pub(super) fn from_jwk(jwk: &Jwk) -> Result<Self, UnfitKey> {
        let (algorithm, published_as) = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => (Algorithm::Rs256, KeyAlgorithm::RS256),
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
                (Algorithm::Es256, KeyAlgorithm::ES256)
            }
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                (Algorithm::EdDsa, KeyAlgorithm::EdDSA)
            }
            // A symmetric key that is published is no secret.
            AlgorithmParameters::EllipticCurve(_)
            | AlgorithmParameters::OctetKeyPair(_)
            | AlgorithmParameters::OctetKey(_)
            | AlgorithmParameters::Other(_)
            | _ => return Err(UnfitKey::Unsupported),
        };
        let common = &jwk.common;
        let for_signatures = common.public_key_use.as_ref().is_none_or(|it| *it == PublicKeyUse::Signature);
        let for_verifying =
            common.key_operations.as_ref().is_none_or(|them| them.contains(&KeyOperations::Verify));
        if !for_signatures || !for_verifying || common.key_algorithm.is_some_and(|it| it != published_as) {
            return Err(UnfitKey::Purpose);
        }
        let key = DecodingKey::from_jwk(jwk).map_err(|_damaged| UnfitKey::Unsupported)?;
        check_material(algorithm, &key)?;
        Ok(Self { algorithm, kid: common.key_id.as_deref().map(Box::from), key })
    }

    /// Whether `signature` (base64url) is this key's over `message`.
    pub(super) fn verify(&self, message: &[u8], signature: &str) -> Result<(), Rejection> {
        match jsonwebtoken::crypto::verify(signature, message, &self.key, self.algorithm.jose()) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(Rejection::BadSignature),
        }
    }
}

impl PartialEq for VerifyingKey {
    fn eq(&self, other: &Self) -> bool {
        let material = |key: &DecodingKey| match key.kind() {
            DecodingKeyKind::SecretOrDer(bytes) => (bytes.clone(), Vec::new()),
            DecodingKeyKind::RsaModulusExponent { n, e } => (n.clone(), e.clone()),
        };
        self.algorithm == other.algorithm
            && self.kid == other.kid
            && material(&self.key) == material(&other.key)
    }
}

/// The bytes of a signing secret that is long enough.
pub(super) fn checked_secret(secret: &Secret<String>) -> Result<&[u8], UnfitKey> {
    let bytes = secret.reveal().as_bytes();
    if bytes.len() < MIN_SECRET_BYTES {
        return Err(UnfitKey::ShortSecret { bytes: bytes.len() });
    }
    Ok(bytes)
}

/// Refuses at once what would only fail, or be unsafe, at the first token.
fn check_material(algorithm: Algorithm, key: &DecodingKey) -> Result<(), UnfitKey> {
    let parsed = match (key.kind(), algorithm) {
        (DecodingKeyKind::RsaModulusExponent { n, .. }, _) => {
            let leading = n.iter().position(|&byte| byte != 0).unwrap_or(n.len());
            let bits = n[leading..].first().map_or(0, |&first| {
                (n.len() - leading) * 8 - usize::try_from(first.leading_zeros()).unwrap_or(0)
            });
            return if RSA_MODULUS_BITS.contains(&bits) { Ok(()) } else { Err(UnfitKey::RsaSize { bits }) };
        }
        (DecodingKeyKind::SecretOrDer(point), Algorithm::Es256) => {
            ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        }
        (DecodingKeyKind::SecretOrDer(point), Algorithm::EdDsa) => ParsedPublicKey::new(&ED25519, point),
        (DecodingKeyKind::SecretOrDer(_), Algorithm::Hs256 | Algorithm::Rs256) => {
            return Err(UnfitKey::Unsupported);
        }
    };
    parsed.map(drop).map_err(|_damaged| UnfitKey::Unsupported)
}

/// What is known of the key set at the JWKS URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fetched {
    /// No URL is configured.
    Never,
    /// It has not been reached yet.
    Awaited,
    /// The last good set is in force.
    Loaded,
}

/// The keys in force at one time.
pub(super) struct KeySet {
    /// Grows by one with each change.
    pub(super) epoch: u64,
    pub(super) fetched: Fetched,
    /// Configured ones first.
    keys: Vec<VerifyingKey>,
}

impl KeySet {
    /// Finds the one key that a token's header points to. `kid` only picks among the keys that are there: a key without a
    /// name takes any `kid`, but only if it is the only such key of its algorithm.
    pub(super) fn pick(&self, algorithm: Algorithm, kid: Option<&str>) -> Result<Picked<'_>, Rejection> {
        let fitting = || self.keys.iter().filter(|key| key.algorithm == algorithm);
        let nameless = || fitting().filter(|key| key.kid.is_none());
        let named = || fitting().filter(|key| key.kid.is_some() && key.kid.as_deref() == kid);
        let may_be_fetched = self.fetched != Fetched::Never && algorithm != Algorithm::Hs256;
        let picked = match kid {
            None => only(fitting()).map(|key| Picked { key, otherwise: Rejection::BadSignature }),
            Some(_) if named().next().is_some() => {
                only(named()).map(|key| Picked { key, otherwise: Rejection::BadSignature })
            }
            // The name may be that of a key which is not fetched yet.
            Some(_) if may_be_fetched => {
                only(nameless()).map(|key| Picked { key, otherwise: self.unknown() })
            }
            Some(_) => only(nameless()).map(|key| Picked { key, otherwise: Rejection::BadSignature }),
        };
        picked.ok_or_else(|| {
            if may_be_fetched || fitting().next().is_some() { self.unknown() } else { Rejection::Algorithm }
        })
    }

    const fn unknown(&self) -> Rejection {
        match self.fetched {
            Fetched::Awaited => Rejection::KeysUnavailable,
            Fetched::Never | Fetched::Loaded => Rejection::UnknownKey,
        }
    }
}

/// A key to try, and what to say if its signature does not fit.
pub(super) struct Picked<'a> {
    pub(super) key: &'a VerifyingKey,
    pub(super) otherwise: Rejection,
}

fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    items.next().filter(|_| items.next().is_none())
}

/// The keys in force, exchanged as a whole when the JWKS or the configured keys change.
pub(super) struct Keyring {
    /// What `current` is made of; held while it is exchanged.
    parts: Mutex<Parts>,
    current: ArcSwap<KeySet>,
    /// That of `current`, where the hot path reads it with one load.
    epoch: AtomicU64,
}

struct Parts {
    configured: Vec<VerifyingKey>,
    published: Vec<VerifyingKey>,
    fetched: Fetched,
}

impl Keyring {
    pub(super) fn new(configured: Vec<VerifyingKey>, fetched: Fetched) -> Self {
        let first = KeySet { epoch: 0, fetched, keys: configured.clone() };
        let parts = Mutex::new(Parts { configured, published: Vec::new(), fetched });
        Self { parts, current: ArcSwap::from_pointee(first), epoch: AtomicU64::new(0) }
    }

    pub(super) fn current(&self) -> Arc<KeySet> {
        self.current.load_full()
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Puts a fetched set in force, if it differs: what was verified before then counts no longer.
    pub(super) fn install(&self, published: Vec<VerifyingKey>) {
        self.exchange(|parts| (parts.published, parts.fetched) = (published, Fetched::Loaded));
    }

    /// The same with the configured keys; answers whether they differ. What was fetched stays.
    pub(super) fn configure(&self, configured: Vec<VerifyingKey>) -> bool {
        self.exchange(|parts| parts.configured = configured)
    }

    fn exchange(&self, change: impl FnOnce(&mut Parts)) -> bool {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut parts);
        let keys: Vec<_> = parts.configured.iter().chain(&parts.published).cloned().collect();
        let (present, fetched) = (self.current(), parts.fetched);
        if present.fetched == fetched && present.keys == keys {
            return false;
        }
        let epoch = present.epoch + 1;
        self.current.store(Arc::new(KeySet { epoch, fetched, keys }));
        self.epoch.store(epoch, Ordering::Release);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::forge::{Forge, pem},
        *,
    };

    #[test]
    fn a_pem_file_pins_the_algorithm_of_its_kind() {
        for (forge, algorithm) in [
            (Forge::rs256(), Algorithm::Rs256),
            (Forge::es256(), Algorithm::Es256),
            (Forge::ed25519(), Algorithm::EdDsa),
        ] {
            assert_eq!(VerifyingKey::from_pem(&forge.public_pem()).unwrap().algorithm, algorithm);
        }
        let pkcs1 = Forge::rs256().public_pkcs1_pem();
        assert_eq!(VerifyingKey::from_pem(&pkcs1).unwrap().algorithm, Algorithm::Rs256);
    }

    #[test]
    fn unfit_pem_files_are_refused_with_the_reason() {
        let error = |text: &str| VerifyingKey::from_pem(text).err().unwrap();
        assert_eq!(error("no key here"), UnfitKey::PemBlocks { blocks: 0 });
        let twice = Forge::es256().public_pem().repeat(2);
        assert_eq!(error(&twice), UnfitKey::PemBlocks { blocks: 2 });
        for label in ["PRIVATE KEY", "CERTIFICATE", "EC PRIVATE KEY"] {
            assert_eq!(error(&pem(label, b"\x30\x00")), UnfitKey::PemLabel { label: label.to_owned() });
        }
        assert_eq!(error(&pem("PUBLIC KEY", b"\x30\x00")), UnfitKey::Unsupported);
        assert_eq!(error(&Forge::p384_public_pem()), UnfitKey::Unsupported);
        assert_eq!(error(&Forge::small_rsa_public_pem()), UnfitKey::RsaSize { bits: 1024 });
    }

    #[test]
    fn a_short_secret_is_refused_without_showing_it() {
        let error = VerifyingKey::from_secret(&Secret::new("hunter2".repeat(4))).err().unwrap();
        assert_eq!(error, UnfitKey::ShortSecret { bytes: 28 });
        assert!(!error.to_string().contains("hunter2"));
        assert!(VerifyingKey::from_secret(&Secret::new("x".repeat(32))).is_ok());
    }

    #[test]
    fn the_epoch_moves_only_when_the_keys_change() {
        let keyring = Keyring::new(Vec::new(), Fetched::Awaited);
        let key = |forge: Forge| vec![VerifyingKey::from_pem(&forge.public_pem()).unwrap()];
        let (first, second) = (key(Forge::es256()), key(Forge::es256()));
        keyring.install(first.clone());
        keyring.install(first);
        assert_eq!(keyring.epoch(), 1);
        keyring.install(second.clone());
        assert_eq!((keyring.epoch(), keyring.current().epoch), (2, 2));
        assert!(!keyring.configure(Vec::new()));
        assert_eq!(keyring.epoch(), 2);
        assert!(keyring.configure(key(Forge::ed25519())));
        keyring.install(second);
        assert_eq!(keyring.epoch(), 3, "what was fetched had stayed");
    }
}
