//! The form of a token: three base64url parts (RFC 7515, section 7.1), a header that is understood, claims of the right types.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

use super::{
    claims::{Claims, LEEWAY},
    glob::Prefixes,
    keys::Algorithm,
    rejection::Rejection,
    scope::Scopes,
};
use crate::clock::UnixMillis;

/// A token taken apart; nothing in it is believed yet.
pub(super) struct Parts<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<Box<str>>,
    /// Header and payload as they were signed.
    pub(super) signed: &'a str,
    payload: &'a str,
    pub(super) signature: &'a str,
}

/// What is read of a header; `jku`, `jwk`, `x5u` and the rest are passed over. A field that stands twice is an error.
#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default, deserialize_with = "present")]
    typ: Option<String>,
    #[serde(default, deserialize_with = "present")]
    kid: Option<Box<str>>,
    #[serde(default, deserialize_with = "present")]
    crit: Option<Value>,
}

/// The claims that are read, each still of any type, so that the one at fault can be named.
#[derive(Deserialize)]
struct RawClaims {
    #[serde(default, deserialize_with = "present")]
    sub: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    exp: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    nbf: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    iat: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    iss: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    aud: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    scope: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    prefixes: Option<Value>,
}

/// Tells `null` from a field that is not there.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(field: D) -> Result<Option<T>, D::Error> {
    T::deserialize(field).map(Some)
}

/// Issuer and audience that a token must name.
#[derive(Clone, Debug, Default)]
pub(super) struct Expected {
    pub(super) issuer: Option<String>,
    pub(super) audience: Option<String>,
}

impl<'a> Parts<'a> {
    /// Takes a token apart and checks its header.
    pub(super) fn parse(token: &'a str) -> Result<Self, Rejection> {
        let (signed, signature) = token.rsplit_once('.').ok_or(Rejection::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Rejection::Malformed)?;
        if payload.contains('.') || URL_SAFE_NO_PAD.decode(signature).is_err() {
            return Err(Rejection::Malformed);
        }
        let header: Header = json_object(header)?;
        if header.crit.is_some() {
            return Err(Rejection::Critical);
        }
        if !header.typ.as_deref().is_none_or(is_known_type) {
            return Err(Rejection::Type);
        }
        let algorithm = Algorithm::from_name(&header.alg).ok_or(Rejection::Algorithm)?;
        Ok(Self { algorithm, kid: header.kid, signed, payload, signature })
    }

    /// Reads and checks the claims; call it once the signature is verified.
    pub(super) fn claims(&self, expected: &Expected, now: UnixMillis) -> Result<Claims, Rejection> {
        let raw: RawClaims = json_object(self.payload)?;
        let expires_at = moment("exp", raw.exp)?.ok_or(Rejection::MissingClaim("exp"))?;
        let not_before = moment("nbf", raw.nbf)?;
        moment("iat", raw.iat)?;
        let issuer = text("iss", raw.iss)?;
        let audiences = audiences(raw.aud)?;
        let subject = text("sub", raw.sub)?.ok_or(Rejection::MissingClaim("sub"))?;
        // Not every store can keep U+0000.
        if subject.is_empty() || subject.contains('\0') {
            return Err(Rejection::InvalidClaim("sub"));
        }
        let scopes = text("scope", raw.scope)?.map_or(Scopes::NONE, |claim| Scopes::from_claim(&claim));
        let prefixes = prefixes(raw.prefixes)?;

        if now >= expires_at.plus(LEEWAY) {
            return Err(Rejection::Expired);
        }
        if not_before.is_some_and(|start| now.plus(LEEWAY) < start) {
            return Err(Rejection::NotYetValid);
        }
        if expected.issuer.is_some() && issuer != expected.issuer {
            return Err(Rejection::WrongIssuer);
        }
        if expected.audience.as_ref().is_some_and(|wanted| !audiences.contains(wanted)) {
            return Err(Rejection::WrongAudience);
        }
        Ok(Claims { subject: Arc::from(subject), scopes, prefixes, expires_at, not_before })
    }
}

/// RFC 7519, section 5.1 and RFC 9068, section 2.1: a media type, `application/` may be left out, case does not matter.
fn is_known_type(typ: &str) -> bool {
    const PREFIX: &str = "application/";
    let prefixed = typ.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
    let subtype = if prefixed { &typ[PREFIX.len()..] } else { typ };
    subtype.eq_ignore_ascii_case("JWT") || subtype.eq_ignore_ascii_case("at+jwt")
}

fn json_object<T: DeserializeOwned>(part: &str) -> Result<T, Rejection> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_no_base64| Rejection::Malformed)?;
    // serde would also read a struct from an array.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(Rejection::Malformed);
    }
    serde_json::from_slice(&bytes).map_err(|_not_understood| Rejection::Malformed)
}

/// A `NumericDate` (RFC 7519, section 2): seconds since 1970, possibly with a fraction.
fn moment(name: &'static str, claim: Option<Value>) -> Result<Option<UnixMillis>, Rejection> {
    let Some(value) = claim else { return Ok(None) };
    let millis = match (value.as_i64(), value.as_f64()) {
        (Some(seconds), _) => seconds.saturating_mul(1_000),
        // The cast saturates: a date beyond the end of time is the end of time.
        (None, Some(seconds)) => (seconds * 1_000.0) as i64,
        (None, None) => return Err(Rejection::InvalidClaim(name)),
    };
    Ok(Some(UnixMillis(millis)))
}

fn text(name: &'static str, claim: Option<Value>) -> Result<Option<String>, Rejection> {
    match claim {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Rejection::InvalidClaim(name)),
    }
}

fn texts(name: &'static str, items: Vec<Value>) -> Result<Vec<String>, Rejection> {
    items.into_iter().map(|item| text(name, Some(item)).map(Option::unwrap_or_default)).collect()
}

/// One audience, or an array of them (RFC 7519, section 4.1.3).
fn audiences(claim: Option<Value>) -> Result<Vec<String>, Rejection> {
    match claim {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) => texts("aud", items),
        Some(single) => Ok(text("aud", Some(single))?.into_iter().collect()),
    }
}

/// An array of patterns, or one text with commas between them.
fn prefixes(claim: Option<Value>) -> Result<Option<Prefixes>, Rejection> {
    match claim {
        None => Ok(None),
        Some(Value::Array(items)) => {
            let patterns = texts("prefixes", items)?;
            Ok(Some(Prefixes::new(patterns.iter().map(String::as_str))))
        }
        Some(single) => Ok(text("prefixes", Some(single))?.map(|list| Prefixes::parse(&list))),
    }
}
