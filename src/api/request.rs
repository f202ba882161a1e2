//! What handlers need of a request: the caller, the query, the body, the headers that matter.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, header};

use super::{Error, Parts};
use crate::{
    auth::{Claims, Scope},
    json::{Invalid, Message, Object},
    language::Language,
    middleware::context::Context,
    prefix_key::PrefixKey,
    rules::CompiledRule,
    store::{AuditAction, AuditDetails, AuditEntry, Author, Note, StoreError},
};

/// No layer named one.
const WITHOUT_CALLER: Error = Error::Internal("a route was served without a caller");

/// A request whose body has arrived.
pub(super) struct Incoming<'a> {
    pub(super) head: &'a http::request::Parts,
    pub(super) body: Bytes,
}

impl Incoming<'_> {
    /// The caller, who must have `scope`.
    pub(super) fn caller(&self, scope: Scope) -> Result<&Arc<Claims>, Error> {
        caller(self.head.extensions.get(), scope)
    }

    /// The caller and the key of the path, which the caller may touch.
    pub(super) fn caller_of(&self, scope: Scope, key: &str) -> Result<(&Arc<Claims>, PrefixKey), Error> {
        let claims = self.caller(scope)?;
        let key = PrefixKey::parse(key)?;
        claims.may_touch(key.as_str())?;
        Ok((claims, key))
    }

    /// The caller as the audit trail names it.
    pub(super) fn author(&self) -> Result<Author, Error> {
        let context: Option<&Context> = self.head.extensions.get();
        let known = context.and_then(|context| Some((context, context.caller.as_ref()?)));
        let (context, claims) = known.ok_or(WITHOUT_CALLER)?;
        Ok(Author {
            subject: Arc::clone(&claims.subject),
            address: Some(context.sender),
            request_id: Some(context.id.as_str().to_owned()),
        })
    }

    /// What the audit trail is to say of a change that the caller makes now.
    pub(super) fn note(
        &self,
        parts: &Parts,
        action: AuditAction,
        key: &PrefixKey,
        details: AuditDetails,
    ) -> Result<Note, Error> {
        let (at, author) = (parts.clock.now(), self.author()?);
        let entry = AuditEntry { at, author, action, key: key.clone(), details };
        Ok(Note::new(Arc::clone(&parts.trail), entry))
    }

    /// The language that the caller reads.
    pub(super) fn language(&self) -> Language {
        Language::of(&self.head.headers)
    }

    /// The query.
    pub(super) fn query(&self) -> Result<Object, Error> {
        Ok(Object::parse_query(self.head.uri.query().unwrap_or_default())?)
    }

    /// The body, a JSON object.
    pub(super) fn object(&self) -> Result<Object, Error> {
        if !is_json(&self.head.headers) {
            return Err(Error::MediaType);
        }
        Ok(Object::parse(&self.body)?)
    }

    /// The body, where an absent one stands for an empty object.
    pub(super) fn optional_object(&self) -> Result<Object, Error> {
        if self.body.is_empty() { Ok(Object::parse(b"{}")?) } else { self.object() }
    }
}

/// The caller that `authenticate` found.
pub(super) fn caller(context: Option<&Context>, scope: Scope) -> Result<&Arc<Claims>, Error> {
    let claims = context.and_then(|context| context.caller.as_ref());
    let claims = claims.ok_or(WITHOUT_CALLER)?;
    claims.require(scope)?;
    Ok(claims)
}

/// The rule in force under `key`, for routes where a missing one is 404.
pub(super) fn rule(parts: &Parts, key: &PrefixKey) -> Result<Arc<CompiledRule>, Error> {
    parts.rules.get(key.as_str()).ok_or_else(|| without_rule(parts, Error::NotRegistered(key.clone())))
}

/// What is said of a key that has no rule: `unregistered`, unless nobody knows yet which have one.
pub(super) fn without_rule(parts: &Parts, unregistered: Error) -> Error {
    if parts.following.as_ref().is_some_and(|following| following.is_blank()) {
        StoreError::Unavailable { store: "shared", operation: "rules", source: "none were read yet".into() }
            .into()
    } else {
        unregistered
    }
}

/// An absent `Content-Type` counts as JSON; anything that names another type does not.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return true };
    let media_type = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let media_type = media_type.to_ascii_lowercase();
    media_type == "application/json"
        || (media_type.starts_with("application/") && media_type.ends_with("+json"))
}

pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The `Idempotency-Key`: 1 to 255 visible ASCII characters, once.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<Arc<str>>, Error> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let visible = value.as_bytes().iter().all(u8::is_ascii_graphic);
    match value.to_str() {
        Ok(text) if visible && (1..=255).contains(&text.len()) && values.next().is_none() => {
            Ok(Some(text.into()))
        }
        _ => Err(Invalid::of(
            "Idempotency-Key",
            Message::new(
                "must be given once, as 1 to 255 visible ASCII characters",
                "须只给出一次，由 1 至 255 个可见 ASCII 字符组成",
            ),
        )
        .into()),
    }
}

/// Notes that a required field is missing, unless something else is wrong with it already.
pub(super) fn required<T>(object: &mut Object, name: &'static str, value: Option<T>) -> Option<T> {
    if value.is_none() && !object.has_error(name) {
        object.error(name, Message::new("is required", "为必填项"));
    }
    value
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn json_by_many_names() {
        let with = |value: &'static str| {
            is_json(&HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(value))]))
        };
        assert!(is_json(&HeaderMap::new()));
        for fine in ["application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"] {
            assert!(with(fine), "{fine}");
        }
        for other in ["text/plain", "application/x-www-form-urlencoded", "json", ""] {
            assert!(!with(other), "{other}");
        }
    }

    #[test]
    fn idempotency_keys_are_visible_ascii() {
        let key = |values: &[&str]| {
            let header = |value: &&str| (IDEMPOTENCY_KEY, HeaderValue::from_str(value).expect("valid"));
            idempotency_key(&values.iter().map(header).collect()).ok().flatten()
        };
        assert_eq!(key(&["a-1"]).as_deref(), Some("a-1"));
        assert_eq!(key(&[&"k".repeat(255)]).map(|key| key.len()), Some(255));
        for wrong in [&[""][..], &["a b"], &["a", "a"], &[&"k".repeat(256)]] {
            assert_eq!(key(wrong), None, "{wrong:?}");
        }
    }
}
