//! The HTTP interface: routes and handlers, one file per resource.
//!
//! A handler decodes, calls, encodes; it holds no logic and no statuses of errors, which `stack/rescue.rs` decides. Order of
//! checks in each: the caller's scope, the caller's prefixes, the request's own form, then what it names.
//!
//! The service is always ready and answers without an allocation for the future where a number can be issued at once.

mod audit;
mod draw;
mod error;
mod formats;
mod health;
mod ledger;
mod numbers;
mod openapi;
mod prefix_configs;
mod request;
mod route;
mod sequences;
mod temporary_numbers;
mod transitions;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use tokio::sync::oneshot;
use tower::{BoxError, Service};
use tracing::Instrument;

use crate::{
    body::{self, Body},
    clock::Clock,
    generate::{Engine, Source, temporary::Resolver},
    lifecycle::Lifecycle,
    middleware::rate_limit::RuleLimits,
    rule::Rule,
    rules::{Following, Registry},
    store::{AuditStore, CountersByMode, LedgerStore},
    telemetry::Counter,
};

pub use error::Error;
pub use health::{Admin, Component, Health, Readiness};
pub use route::{LABELS, allow, info};

use draw::Remembered;
use request::Incoming;
use route::{Kind, Route};

/// Counts what is issued, for metrics.
pub trait Meter: Send + Sync + 'static {
    /// The counter of the numbers that a rule issues from one source; the same one at every call.
    fn counter(&self, rule: &Rule, source: Source) -> Counter;
}

/// What every handler works with.
pub struct Parts {
    /// The register of rules.
    pub rules: Arc<Registry>,
    /// What the rules rest on, where they are kept elsewhere.
    pub following: Option<Arc<Following>>,
    /// Issues numbers.
    pub engine: Arc<Engine>,
    /// Counters, to be shown and advanced.
    pub counters: CountersByMode,
    /// Ledgers, to be shown and changed.
    pub ledgers: Arc<dyn LedgerStore>,
    /// Temporary numbers, to be shown and resolved.
    pub temporary: Arc<Resolver>,
    /// Who changed what.
    pub trail: Arc<dyn AuditStore>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// How long a request body may take to arrive.
    pub body_timeout: Duration,
    /// How long the answer to a request may take, once all of it is there.
    pub request_timeout: Duration,
    /// Counts what is issued.
    pub meter: Arc<dyn Meter>,
    /// The limits that rules set.
    pub rule_limits: RuleLimits,
    /// What a request has begun that must be finished, also where its caller has gone.
    pub serving: Lifecycle,
}

/// The public service. Cloning is cheap; each connection has its own, which remembers the rule that it used last.
#[derive(Clone)]
pub struct Api {
    parts: Arc<Parts>,
    last: Option<Arc<Remembered>>,
}

impl Api {
    /// The service over `parts`.
    pub fn new(parts: Parts) -> Self {
        Self { parts: Arc::new(parts), last: None }
    }
}

/// A handler that takes longer than a moment.
type Slow = Pin<Box<dyn Future<Output = Result<Response<Body>, Error>> + Send>>;

/// The answer, at once or later.
pub enum Answer {
    /// At once.
    Ready(Option<Result<Response<Body>, Error>>),
    /// Later.
    Slow(Slow),
}

impl Future for Answer {
    type Output = Result<Response<Body>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = match &mut *self {
            Self::Ready(answer) => {
                answer.take().unwrap_or(Err(Error::Internal("an answer was polled twice")))
            }
            Self::Slow(slow) => match slow.as_mut().poll(cx) {
                Poll::Ready(answer) => answer,
                Poll::Pending => return Poll::Pending,
            },
        };
        Poll::Ready(answer.map_err(Into::into))
    }
}

impl<B> Service<Request<B>> for Api
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Answer;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Answer {
        if draw::is_draw(&request) {
            return draw::draw(&self.parts, &mut self.last, request);
        }
        Answer::Slow(Box::pin(dispatch(Arc::clone(&self.parts), request)))
    }
}

async fn dispatch<B>(parts: Arc<Parts>, request: Request<B>) -> Result<Response<Body>, Error>
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (head, body) = request.into_parts();
    let route = Route::of(head.uri.path()).ok_or(Error::NotFound)?;
    if head.method == Method::OPTIONS {
        let mut response = body::empty(StatusCode::NO_CONTENT);
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(route.kind.allow()));
        return Ok(response);
    }
    if !route.kind.allows(&head.method) {
        return Err(Error::MethodNotAllowed { allow: route.kind.allow() });
    }
    let body = body::read(body, parts.body_timeout).await?;
    if route.kind.leaves_note(&head.method) {
        let limit = parts.request_timeout;
        let answer = tokio::time::timeout(limit, to_its_end(parts, head, body));
        return answer.await.unwrap_or(Err(Error::TooLong(limit)));
    }
    let request = Incoming { head: &head, body };
    // Stores have deadlines of their own, most of them shorter; this one holds whatever a handler does with them.
    let limit = parts.request_timeout;
    tokio::time::timeout(limit, handle(&parts, route, &request)).await.unwrap_or(Err(Error::TooLong(limit)))
}

/// Serves a request that leaves an entry on the audit trail, as a task: a caller that goes away, or the limit of time, ends the wait for
/// the answer and not the work, which would otherwise stop between the change and its entry.
async fn to_its_end(
    parts: Arc<Parts>,
    head: http::request::Parts,
    body: Bytes,
) -> Result<Response<Body>, Error> {
    let (answer, answered) = oneshot::channel();
    let serving = parts.serving.clone();
    let task = async move {
        let request = Incoming { head: &head, body };
        let outcome = match Route::of(head.uri.path()) {
            Some(route) => handle(&parts, route, &request).await,
            None => Err(Error::NotFound),
        };
        // The caller may have gone.
        let _unread = answer.send(outcome);
    };
    serving.spawn(task.in_current_span());
    answered.await.unwrap_or(Err(Error::Internal("the code of the request panicked")))
}

/// Each route's handler. `HEAD` is served as `GET`; the server leaves the body out.
async fn handle(parts: &Parts, route: Route<'_>, request: &Incoming<'_>) -> Result<Response<Body>, Error> {
    let (key, number) = (route.key().ok_or(Error::NotFound)?, route.number().ok_or(Error::NotFound)?);
    // No number has it, and not every store can look for it.
    if number.contains('\0') {
        return Err(Error::NotFound);
    }
    let method = &request.head.method;
    match route.kind {
        Kind::PrefixConfigs if method == Method::POST => prefix_configs::register(parts, request, None).await,
        Kind::PrefixConfigs => prefix_configs::list(parts, request),
        Kind::PrefixConfig => match *method {
            Method::POST => prefix_configs::register(parts, request, Some(&key)).await,
            Method::PUT => prefix_configs::put(parts, request, &key).await,
            Method::DELETE => prefix_configs::delete(parts, request, &key).await,
            _ => prefix_configs::get(parts, request, &key),
        },
        Kind::FormatPreview => formats::preview(parts, request).await,
        Kind::Numbers if method == Method::POST => numbers::post(parts, request).await,
        Kind::Numbers => numbers::get(parts, request, None).await,
        Kind::NumbersOf => numbers::get(parts, request, Some(&key)).await,
        Kind::Decode => numbers::decode(parts, request),
        Kind::Confirm => transitions::confirm(parts, request, &key, &number).await,
        Kind::Void => transitions::void(parts, request, &key, &number).await,
        Kind::Sequence => sequences::show(parts, request, &key).await,
        Kind::Advance => sequences::advance(parts, request, &key).await,
        Kind::Abandon => sequences::abandon(parts, request, &key).await,
        Kind::Ledger => ledger::rows(parts, request, &key).await,
        Kind::Certificate => ledger::certificate(parts, request, &key).await,
        Kind::Audit => audit::page(parts, request).await,
        Kind::TemporaryNumbers => temporary_numbers::list(parts, request).await,
        Kind::ResolveTemporary => temporary_numbers::resolve(parts, request, &number).await,
        Kind::OpenApi => Ok(openapi::document()),
        Kind::Docs => Ok(openapi::page()),
    }
}
