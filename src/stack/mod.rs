//! The two stacks: what a request passes on its way in, top to bottom, and its answer on the way out, bottom to top.
//!
//! A refusal travels as a typed error up to `rescue`, which alone knows statuses; above it nothing fails.

mod refusals;
mod rescue;

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use tower::{
    BoxError, Service, ServiceBuilder,
    util::{MapResponseLayer, option_layer},
};

use crate::{
    api::{self, Admin, Api},
    auth::Verifier,
    body::Body,
    clock::Clock,
    config::Cidr,
    middleware::{
        authenticate::AuthenticateLayer,
        catch_panic::CatchPanicLayer,
        context::ContextLayer,
        cors::CorsLayer,
        head_limits::HeadLimitsLayer,
        observe::ObserveLayer,
        overload::OverloadLayer,
        rate_limit::{AddressLimitLayer, Limits, RateLimitLayer},
        redact::RedactLayer,
        rescue::{Head, RescueLayer},
    },
    telemetry::{HttpMetrics, Metrics},
};

use refusals::Refusals;

/// What the layers of the public stack share between connections.
#[derive(Clone)]
pub struct Public {
    api: Api,
    proxies: Arc<[Cidr]>,
    cors: Option<CorsLayer>,
    observe: ObserveLayer,
    refusals: Refusals,
    overload: OverloadLayer,
    strict_transport: Option<AnswerLayer>,
    address_limit: AddressLimitLayer,
    authenticate: AuthenticateLayer,
    rate_limit: RateLimitLayer,
}

/// What the public stack is made of.
pub struct PublicParts {
    /// The handlers.
    pub api: Api,
    /// Whose forwarded-for fields count.
    pub proxies: Arc<[Cidr]>,
    /// Which browsers may call.
    pub cors: Option<CorsLayer>,
    /// Where requests are counted.
    pub metrics: Metrics,
    /// Verifies tokens.
    pub verifier: Arc<Verifier>,
    /// Who may ask how often.
    pub limits: Arc<Limits>,
    /// How many requests may wait for a store.
    pub max_waiting: usize,
    /// How many threads serve.
    pub threads: usize,
    /// What connections run over.
    pub transport: Transport,
    /// Of requests that went well, one in so many is logged at level info; 0: none.
    pub access_sample: u32,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// What connections run over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Plain,
    /// TLS.
    Tls,
}

/// Changes answers.
type AnswerLayer = MapResponseLayer<fn(Response<Body>) -> Response<Body>>;

/// Tells browsers to use nothing but TLS for this host for a year (RFC 6797). Subdomains are not ours to speak for.
fn with_strict_transport(mut response: Response<Body>) -> Response<Body> {
    let year = HeaderValue::from_static("max-age=31536000");
    response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, year);
    response
}

impl Public {
    /// Makes what is shared.
    pub fn new(parts: PublicParts) -> Self {
        let http = HttpMetrics::new(&parts.metrics, &api::LABELS);
        Self {
            api: parts.api,
            proxies: parts.proxies,
            cors: parts.cors,
            observe: ObserveLayer::new(http, Arc::clone(&parts.clock), parts.access_sample),
            refusals: Refusals::new(&parts.metrics),
            overload: OverloadLayer::new(parts.max_waiting, parts.threads, parts.clock),
            strict_transport: (parts.transport == Transport::Tls)
                .then(|| MapResponseLayer::new(with_strict_transport as fn(_) -> _)),
            address_limit: AddressLimitLayer::new(Arc::clone(&parts.limits), rescue::is_refusal),
            authenticate: AuthenticateLayer::new(parts.verifier),
            rate_limit: RateLimitLayer::new(parts.limits),
        }
    }

    /// The stack of one connection. Each connection has its own, so that layers can remember the last token and subject
    /// without a lock.
    pub fn connection<B>(
        &self,
        peer: SocketAddr,
    ) -> impl Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send> + Send + use<B>
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let refusals = self.refusals.clone();
        ServiceBuilder::new()
            // On every answer, whoever gives it; over plain TCP it would mean nothing.
            .layer(option_layer(self.strict_transport.clone()))
            // So early, so that everything below can name the request, its sender and its route.
            .layer(ContextLayer::new(peer.ip(), &self.proxies, api::info))
            // Before anything that might print a request.
            .layer(RedactLayer)
            // Above whatever can answer, so that every answer is counted and timed.
            .layer(&self.observe)
            // Above authentication: a preflight bears no token, and is answered here.
            .layer(option_layer(self.cors.clone()))
            // Below here requests may fail; above it they have an answer.
            .layer(RescueLayer::new(move |error: BoxError, head: &Head| {
                refusals.count(&*error);
                rescue::answer(error, head)
            }))
            // Directly below, so that a panic gets a problem document like any other failure.
            .layer(CatchPanicLayer)
            // Cheap refusals first: size, then load, then addresses that were refused too often.
            .layer(HeadLimitsLayer)
            .layer(&self.overload)
            .layer(&self.address_limit)
            // The first layer that costs something per request; those below know the caller.
            .layer(&self.authenticate)
            .layer(&self.rate_limit)
            .service(self.api.clone())
    }
}

/// The stack of the admin listener: no token, no limits, bound to an address that only operators reach.
pub fn admin<B>(
    admin: Admin,
    peer: SocketAddr,
) -> impl Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send> + Send + use<B>
where
    B: Send + 'static,
{
    ServiceBuilder::new()
        .layer(ContextLayer::new(peer.ip(), &Arc::default(), api::info))
        .layer(RescueLayer::new(rescue::answer))
        .layer(CatchPanicLayer)
        .service(admin)
}
