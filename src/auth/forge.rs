//! Keys and tokens for tests, the forbidden kinds too. Keys are made at run time: none lie in the repository.

use std::sync::OnceLock;

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
        KeyPair, RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents,
    },
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

/// A private key that signs whatever it is given.
pub(crate) enum Forge {
    Hs256(Box<hmac::Key>),
    Rs256(&'static RsaKeyPair),
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
}

/// A text as a part of a token.
pub(crate) fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A PEM block.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

impl Forge {
    pub(crate) fn hs256(secret: &[u8]) -> Self {
        Self::Hs256(Box::new(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    /// The same key each time: making one takes long.
    pub(crate) fn rs256() -> Self {
        static KEY: OnceLock<RsaKeyPair> = OnceLock::new();
        Self::Rs256(KEY.get_or_init(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap()))
    }

    pub(crate) fn es256() -> Self {
        Self::Es256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub(crate) fn ed25519() -> Self {
        Self::EdDsa(Ed25519KeyPair::generate().unwrap())
    }

    pub(crate) fn alg(&self) -> &'static str {
        match self {
            Self::Hs256(_) => "HS256",
            Self::Rs256(_) => "RS256",
            Self::Es256(_) => "ES256",
            Self::EdDsa(_) => "EdDSA",
        }
    }

    /// Signs any header and any payload, however wrong.
    pub(crate) fn sign(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", encoded(header), encoded(payload));
        let rng = SystemRandom::new();
        let signature = match self {
            Self::Hs256(key) => hmac::sign(key, signed.as_bytes()).as_ref().to_vec(),
            Self::Rs256(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &rng, signed.as_bytes(), &mut signature).unwrap();
                signature
            }
            Self::Es256(key) => key.sign(&rng, signed.as_bytes()).unwrap().as_ref().to_vec(),
            Self::EdDsa(key) => key.sign(signed.as_bytes()).as_ref().to_vec(),
        };
        format!("{signed}.{}", encoded(signature))
    }

    /// Signs a well-formed token, with a `kid` if one is given.
    pub(crate) fn token(&self, kid: Option<&str>, payload: &Value) -> String {
        let mut header = json!({"typ": "JWT", "alg": self.alg()});
        if let Some(kid) = kid {
            header["kid"] = json!(kid);
        }
        self.sign(&header.to_string(), &payload.to_string())
    }

    pub(crate) fn public_pem(&self) -> String {
        let der: PublicKeyX509Der<'_> = match self {
            Self::Hs256(_) => unreachable!("a secret has no public half"),
            Self::Rs256(key) => key.public_key().as_der().unwrap(),
            Self::Es256(key) => key.public_key().as_der().unwrap(),
            Self::EdDsa(key) => key.public_key().as_der().unwrap(),
        };
        pem("PUBLIC KEY", der.as_ref())
    }

    pub(crate) fn public_pkcs1_pem(&self) -> String {
        let Self::Rs256(key) = self else { unreachable!("PKCS#1 is RSA") };
        pem("RSA PUBLIC KEY", key.public_key().as_ref())
    }

    pub(crate) fn public_jwk(&self, kid: Option<&str>) -> Value {
        let mut jwk = match self {
            Self::Hs256(_) => unreachable!("a secret has no public half"),
            Self::Rs256(key) => {
                let parts = RsaPublicKeyComponents::<Vec<u8>>::from(key.public_key());
                json!({"kty": "RSA", "n": encoded(parts.n), "e": encoded(parts.e)})
            }
            Self::Es256(key) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "x": encoded(x), "y": encoded(y)})
            }
            Self::EdDsa(key) => json!({"kty": "OKP", "crv": "Ed25519", "x": encoded(key.public_key())}),
        };
        if let Some(kid) = kid {
            jwk["kid"] = json!(kid);
        }
        jwk
    }

    pub(crate) fn p384_public_pem() -> String {
        let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let der: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
        pem("PUBLIC KEY", der.as_ref())
    }

    /// An RSA key of 1024 bits; nobody has its private half.
    pub(crate) fn small_rsa_public_pem() -> String {
        let mut der = vec![0x30, 0x81, 0x89, 0x02, 0x81, 0x81, 0x00];
        der.extend(small_modulus());
        der.extend([0x02, 0x03, 0x01, 0x00, 0x01]);
        pem("RSA PUBLIC KEY", &der)
    }

    pub(crate) fn small_rsa_jwk() -> Value {
        json!({"kty": "RSA", "n": encoded(small_modulus()), "e": "AQAB"})
    }
}

fn small_modulus() -> Vec<u8> {
    (0..128_u8).map(|index| index.wrapping_mul(37) | 0x81).collect()
}
