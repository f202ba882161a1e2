//! A key pair that signs tokens, as an issuer has one.

use aws_lc_rs::{
    encoding::{AsDer as _, PublicKeyX509Der},
    signature::{Ed25519KeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::Value;

/// An Ed25519 key pair.
pub(crate) struct TokenKey(Ed25519KeyPair);

impl TokenKey {
    pub(crate) fn new() -> Self {
        Self(Ed25519KeyPair::generate().expect("a key"))
    }

    /// The public half as 32 bytes.
    pub(crate) fn raw(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    /// The public half as a document.
    pub(crate) fn der(&self) -> Vec<u8> {
        let der: PublicKeyX509Der<'_> = self.0.public_key().as_der().expect("a document");
        der.as_ref().to_vec()
    }

    /// The same as text.
    pub(crate) fn pem(&self) -> String {
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(self.der()))
    }

    /// A token with these claims.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let pkcs8 = self.0.to_pkcs8v1().expect("a document");
        let key = EncodingKey::from_ed_der(pkcs8.as_ref());
        jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), claims, &key).expect("signed")
    }
}
