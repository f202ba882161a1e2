//! THE table: which error is which problem. No other file decides a status.

use std::error::Error as StdError;

use http::{HeaderValue, Response, StatusCode, header};
use tower::BoxError;
use tracing::field::display;

use crate::{
    api,
    auth::Forbidden,
    body::{self, Body, ReadError},
    generate::{IssueError, temporary::ResolveError},
    json::Invalid,
    language::{Language, Localized},
    middleware::{
        authenticate::Unauthenticated, head_limits::HeadTooLarge, observe::OneOfMany, overload::Overloaded,
        rate_limit::Exceeded, rescue::Head,
    },
    problem::{Code, Problem},
    rules::{SaveError, UseError},
    store::StoreError,
    template::{FormatError, FormatErrorKind},
};

/// The answer to a request that failed. Causes go to the log under the request's ID, never into the body.
pub(super) fn answer(error: BoxError, head: &Head) -> Response<Body> {
    let language = head.language();
    let problem = problem(&*error, language);
    log(&*error, &problem, head);
    let document = problem.to_json(language, head.path(), head.request_id());
    let mut response = body::full(problem.status, "application/problem+json", document.to_string());
    if error.is::<Overloaded>() {
        response.extensions_mut().insert(OneOfMany);
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LANGUAGE, HeaderValue::from_static(language.tag()));
    if let Some(seconds) = problem.retry_after_s {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if problem.status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if problem.status == StatusCode::REQUEST_TIMEOUT || problem.status == StatusCode::PAYLOAD_TOO_LARGE {
        // The rest of the body is still on its way: nothing can follow on this connection.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(api::Error::MethodNotAllowed { allow }) = error.downcast_ref() {
        headers.insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    if let Some(exceeded) = exceeded(&*error) {
        for (name, value) in [
            ("ratelimit", exceeded.rate_limit_field()),
            ("ratelimit-policy", exceeded.rate_limit_policy_field()),
        ] {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
    }
    response
}

/// Whether the address of a request that failed so is charged for it: refusals of the caller, not of what it asked.
pub(super) fn is_refusal(error: &BoxError) -> bool {
    error.is::<Unauthenticated>()
        || error.is::<Exceeded>()
        || matches!(error.downcast_ref(), Some(api::Error::Forbidden(_)))
}

pub(super) fn exceeded<'a>(error: &'a (dyn StdError + Send + Sync + 'static)) -> Option<&'a Exceeded> {
    match error.downcast_ref() {
        Some(api::Error::RateLimited(exceeded)) => Some(exceeded),
        _ => error.downcast_ref(),
    }
}

/// One line for each type of error that can come up the stack.
fn problem(error: &(dyn StdError + Send + Sync + 'static), language: Language) -> Problem {
    if let Some(error) = error.downcast_ref::<api::Error>() {
        of_api(error, language)
    } else if let Some(error) = error.downcast_ref::<Unauthenticated>() {
        Problem::new(Code::Unauthorized, error.localized(language))
    } else if let Some(error) = error.downcast_ref::<Exceeded>() {
        of_rate_limit(error, language)
    } else if let Some(error) = error.downcast_ref::<Overloaded>() {
        Problem::new(Code::Overloaded, error.localized(language))
    } else if let Some(error) = error.downcast_ref::<HeadTooLarge>() {
        let code = match error {
            HeadTooLarge::Url => Code::UriTooLong,
            HeadTooLarge::Headers => Code::HeadersTooLarge,
        };
        Problem::new(code, error.localized(language))
    } else {
        internal(language)
    }
}

fn of_api(error: &api::Error, language: Language) -> Problem {
    use api::Error;
    let with = |code| Problem::new(code, error.localized(language));
    match error {
        Error::Forbidden(Forbidden::Scope(_) | Forbidden::Prefix(_)) => with(Code::Forbidden),
        Error::Read(ReadError::TooLarge) => with(Code::PayloadTooLarge),
        Error::Read(ReadError::TooSlow(_)) => with(Code::RequestTimeout),
        Error::Read(ReadError::Broken(_)) | Error::Malformed(_) => of_field("body", error, language),
        Error::Key(_) => of_field("prefix_key", error, language),
        Error::MediaType => with(Code::UnsupportedMediaType),
        Error::Invalid(invalid) => of_fields(invalid, language),
        Error::NotFound | Error::Missing(_) => with(Code::NotFound),
        Error::MethodNotAllowed { .. } => with(Code::MethodNotAllowed),
        Error::IssueUnregistered(_) => {
            Problem { status: StatusCode::BAD_REQUEST, ..with(Code::PrefixNotRegistered) }
        }
        Error::NotRegistered(_) => with(Code::PrefixNotRegistered),
        Error::Save(error) => of_save(error, language),
        Error::Use(UseError::NotRegistered(_)) => {
            Problem { status: StatusCode::BAD_REQUEST, ..with(Code::PrefixNotRegistered) }
        }
        Error::Use(error @ UseError::Untold { .. }) => of_field("date", error, language),
        Error::Use(UseError::Store(error)) | Error::Store(error) => of_store(error, language),
        Error::Issue(error) => of_issue(error, language),
        Error::RateLimited(error) => of_rate_limit(error, language),
        Error::Decode(_) | Error::Temporary { .. } => with(Code::NotDecodable),
        Error::Resolve(ResolveError::Unknown(_)) => with(Code::NotFound),
        Error::Resolve(ResolveError::Conflict(_)) => with(Code::StateConflict),
        Error::Resolve(ResolveError::Store(error)) => of_store(error, language),
        Error::BelowHighWater { .. } => with(Code::BelowHighWater),
        Error::AdvanceTooFar { .. } | Error::RowConflict { .. } | Error::StateConflict(_) => {
            with(Code::StateConflict)
        }
        Error::TooLong(_) => with(Code::StorageTimeout),
        Error::Internal(_) => internal(language),
    }
}

fn of_save(error: &SaveError, language: Language) -> Problem {
    let with = |code| Problem::new(code, error.localized(language));
    match error {
        SaveError::Format(error) => of_format(error, language),
        SaveError::Invalid(invalid) => of_fields(invalid, language),
        SaveError::AlreadyExists(_) => with(Code::PrefixAlreadyExists),
        SaveError::NotRegistered(_) => with(Code::PrefixNotRegistered),
        SaveError::FormatConflict { .. } => with(Code::FormatConflict),
        SaveError::StateConflict(_) => with(Code::StateConflict),
        SaveError::PreconditionFailed(_) => with(Code::PreconditionFailed),
        SaveError::StrictUnavailable { .. } => of_field("mode", error, language),
        SaveError::Store(error) => of_store(error, language),
    }
}

fn of_format(error: &FormatError, language: Language) -> Problem {
    let detail = error.localized(language);
    match error.kind() {
        FormatErrorKind::MissingSeq => {
            let title = match language {
                Language::English => "Missing {SEQ} tag",
                Language::Chinese => "缺少 {SEQ} 标记",
            };
            Problem { title: Some(title), ..Problem::new(Code::InvalidFormat, detail) }
        }
        FormatErrorKind::InvalidFormat => Problem::new(Code::InvalidFormat, detail),
        FormatErrorKind::InvalidLength => Problem::new(Code::InvalidLength, detail),
        FormatErrorKind::Validation => of_field(error.field(), error, language),
    }
}

/// One field is at fault, and nothing else is to be said.
fn of_field(field: &str, error: &impl Localized, language: Language) -> Problem {
    let detail = error.localized(language);
    let fields = vec![(field.to_owned(), detail.clone())];
    Problem { fields, ..Problem::new(Code::Validation, detail) }
}

fn of_fields(invalid: &Invalid, language: Language) -> Problem {
    let field = |error: &crate::json::FieldError| (error.field.clone(), error.message.localized(language));
    let fields = invalid.errors.iter().map(field).collect();
    Problem { fields, ..Problem::new(Code::Validation, invalid.localized(language)) }
}

fn of_issue(error: &IssueError, language: Language) -> Problem {
    let with = |code| Problem::new(code, error.localized(language));
    match error {
        IssueError::Overflow { .. } | IssueError::TimeExhausted => with(Code::SequenceOverflow),
        IssueError::NoWindow => with(Code::NoWorkerId),
        IssueError::Busy(_) => with(Code::Overloaded),
        IssueError::IdempotencyMismatch => with(Code::IdempotencyMismatch),
        IssueError::Timeout => with(Code::StorageTimeout),
        IssueError::Store(error) => of_store(error, language),
        IssueError::Unbridged { .. } => with(Code::StorageUnavailable),
        IssueError::KeysAway(error) => with(of_store(error, language).code),
        IssueError::Random(_) | IssueError::Internal(_) => internal(language),
    }
}

fn of_store(error: &StoreError, language: Language) -> Problem {
    let detail = |english: &str, chinese: &str| match language {
        Language::English => english.to_owned(),
        Language::Chinese => chinese.to_owned(),
    };
    match error {
        StoreError::Timeout { .. } => Problem::new(
            Code::StorageTimeout,
            detail("the store did not answer in time; try again", "存储未能及时响应，请重试"),
        ),
        StoreError::Unavailable { .. } => Problem::new(
            Code::StorageUnavailable,
            detail("the store is not available at the moment; try again", "存储暂不可用，请稍后重试"),
        ),
        StoreError::Superseded { .. } => Problem::new(
            Code::StorageUnavailable,
            detail("the rule was replaced at this moment; try again", "规则刚被替换，请重试"),
        ),
        StoreError::Suspended { why } => Problem::new(Code::StorageUnavailable, why.localized(language)),
        StoreError::Corrupt { .. } => internal(language),
    }
}

fn of_rate_limit(error: &Exceeded, language: Language) -> Problem {
    Problem {
        retry_after_s: Some(error.retry_after_seconds()),
        ..Problem::new(Code::RateLimited, error.localized(language))
    }
}

fn internal(language: Language) -> Problem {
    let detail = match language {
        Language::English => "something went wrong here; the log has the cause under this request_id",
        Language::Chinese => "服务内部出错；日志中以该 request_id 记录了原因",
    };
    Problem::new(Code::Internal, detail)
}

/// Logs what operators must see: what we did wrong, with its causes, and whom we refused.
fn log(error: &(dyn StdError + Send + Sync + 'static), problem: &Problem, head: &Head) {
    let (request_id, path, code) = (head.request_id(), head.path(), problem.code.as_str());
    let trace_id = head.trace().map(|trace| display(trace.trace_id()));
    if error.is::<Overloaded>() {
        // The layer says so itself, once a second.
    } else if problem.status.is_server_error() {
        let error: &(dyn StdError + 'static) = error;
        tracing::error!(
            request_id,
            trace_id,
            method = head.method().as_str(),
            path,
            code,
            error,
            "request failed"
        );
    } else if let Some(api::Error::Forbidden(forbidden)) = error.downcast_ref() {
        let address = head.sender().map(display);
        tracing::warn!(
            request_id,
            trace_id,
            route = path,
            address,
            status = 403,
            reason = forbidden.reason(),
            "request refused"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{auth::Rejection, middleware::catch_panic::Panicked, prefix_key::PrefixKey};

    fn code(error: impl Into<BoxError>) -> (Code, u16) {
        let problem = problem(&*error.into(), Language::English);
        (problem.code, problem.status.as_u16())
    }

    #[test]
    fn each_layers_error_has_its_row() {
        let key = || PrefixKey::parse("UNKNOWN").expect("valid");
        assert_eq!(code(Unauthenticated(Rejection::Missing)), (Code::Unauthorized, 401));
        assert_eq!(code(Overloaded { limit: 1 }), (Code::Overloaded, 503));
        assert_eq!(code(HeadTooLarge::Url), (Code::UriTooLong, 414));
        assert_eq!(code(HeadTooLarge::Headers), (Code::HeadersTooLarge, 431));
        assert_eq!(code(Panicked), (Code::Internal, 500));
        assert_eq!(code("an error that nobody knows"), (Code::Internal, 500));
        assert_eq!(code(api::Error::IssueUnregistered(key())), (Code::PrefixNotRegistered, 400));
        assert_eq!(code(api::Error::NotRegistered(key())), (Code::PrefixNotRegistered, 404));
    }

    #[test]
    fn validation_names_its_field() {
        let key = PrefixKey::parse("a b").expect_err("a space");
        let body = crate::json::Object::parse(b"[]").expect_err("an array");
        let broken = || ReadError::Broken("reset".into());
        let strict = SaveError::StrictUnavailable { setting: "NUMGEN_DATABASE_URL" };
        for (error, field) in [
            (api::Error::Key(key), "prefix_key"),
            (api::Error::Malformed(body), "body"),
            (api::Error::Read(broken()), "body"),
            (api::Error::Save(strict), "mode"),
        ] {
            let problem = problem(&error, Language::Chinese);
            assert_eq!(problem.code, Code::Validation);
            assert_eq!(problem.fields, [(field.to_owned(), problem.detail.clone())]);
        }
    }

    #[test]
    fn a_store_that_is_late_is_told_from_one_that_is_away() {
        let timeout = StoreError::Timeout { store: "sqlite", operation: "take" };
        let away = StoreError::Unavailable { store: "sqlite", operation: "take", source: "disk full".into() };
        let corrupt = StoreError::Corrupt { store: "sqlite", what: "a row".into() };
        assert_eq!(code(api::Error::Store(timeout)), (Code::StorageTimeout, 503));
        assert_eq!(code(api::Error::Issue(IssueError::Timeout)), (Code::StorageTimeout, 503));
        assert_eq!(code(api::Error::Store(away)), (Code::StorageUnavailable, 503));
        assert_eq!(code(api::Error::Store(corrupt)), (Code::Internal, 500));
    }

    #[test]
    fn no_cause_reaches_the_body() {
        let source = "password=hunter2 in the driver's words".into();
        let error = StoreError::Unavailable { store: "sqlite", operation: "take", source };
        for language in [Language::English, Language::Chinese] {
            let problem = problem(
                &api::Error::Store(StoreError::Corrupt { store: "s", what: "hunter2".into() }),
                language,
            );
            assert!(!problem.detail.contains("hunter2"));
        }
        assert!(!problem(&api::Error::Store(error), Language::English).detail.contains("hunter2"));
    }
}
