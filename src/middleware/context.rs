//! Works out once what every layer asks of a request: who sends it, under which ID, for which route.
//!
//! One value in the request's extensions instead of several, and a path that is looked at once: with what the layers below do per
//! request, that is a good part of their cost. The answer carries the ID in `X-Request-Id`.

use std::{
    future::Future,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, ready},
};

use http::{Method, Request, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::{
    peer::Senders,
    request_id::{RequestId, Sequence, X_REQUEST_ID},
};
use crate::{auth::Claims, config::Cidr, telemetry::traces::TraceContext};

/// What is known of a request.
#[derive(Clone, Debug)]
pub struct Context {
    /// The address that it comes from.
    pub sender: IpAddr,
    /// Its ID.
    pub id: RequestId,
    /// The trace that it belongs to, if it belongs to one.
    pub trace: Option<TraceContext>,
    /// What it is for.
    pub route: RouteInfo,
    /// Who asks, once that is verified.
    pub caller: Option<Arc<Claims>>,
}

impl Context {
    /// The context of a request; `None` where no [`ContextLayer`] stands above.
    pub fn of<B>(request: &Request<B>) -> Option<&Self> {
        request.extensions().get()
    }

    /// The context of a request of `caller`, for tests of handlers.
    #[cfg(test)]
    pub(crate) fn of_caller(caller: Claims, route: RouteInfo) -> Self {
        let sender = IpAddr::from([127, 0, 0, 1]);
        Self { sender, id: Sequence::new().next(), trace: None, route, caller: Some(Arc::new(caller)) }
    }

    /// Notes which trace a request belongs to.
    pub(super) fn name_trace<B>(request: &mut Request<B>, trace: TraceContext) {
        if let Some(context) = request.extensions_mut().get_mut::<Self>() {
            context.trace = Some(trace);
        }
    }

    /// Names the caller of a request, below the layer that verified it.
    pub(super) fn name_caller<B>(request: &mut Request<B>, caller: Arc<Claims>) {
        if let Some(context) = request.extensions_mut().get_mut::<Self>() {
            context.caller = Some(caller);
        }
    }
}

/// What layers know of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteInfo {
    /// Its place among the routes of the metrics.
    pub index: usize,
    /// Its pattern, never the path itself, which has no bound.
    pub label: &'static str,
    /// Who may ask.
    pub access: Access,
    /// What it is counted as.
    pub class: Class,
}

/// Who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Open,
    /// Who bears a valid token.
    Token,
}

/// What a request is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It issues numbers.
    Numbers,
    /// Anything else.
    Management,
}

/// Says what a request is for, by its method and path.
pub type RouteOf = fn(&Method, &str) -> RouteInfo;

/// Puts a [`Context`] into the requests of one connection.
#[derive(Clone, Debug)]
pub struct ContextLayer {
    senders: Senders,
    route_of: RouteOf,
}

impl ContextLayer {
    /// For the connection from `peer`, where `proxies` are trusted to name the sender.
    pub fn new(peer: IpAddr, proxies: &Arc<[Cidr]>, route_of: RouteOf) -> Self {
        Self { senders: Senders::new(peer, proxies), route_of }
    }
}

impl<S> Layer<S> for ContextLayer {
    type Service = Contexts<S>;

    fn layer(&self, inner: S) -> Contexts<S> {
        Contexts { inner, layer: self.clone(), ids: Sequence::new() }
    }
}

/// Service of [`ContextLayer`].
#[derive(Clone, Debug)]
pub struct Contexts<S> {
    inner: S,
    layer: ContextLayer,
    ids: Sequence,
}

impl<S, B, R> Service<Request<B>> for Contexts<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let given = request.headers().get(X_REQUEST_ID).and_then(RequestId::given);
        let id = given.unwrap_or_else(|| self.ids.next());
        let sender = self.layer.senders.sender(request.headers());
        let route = (self.layer.route_of)(request.method(), request.uri().path());
        request.extensions_mut().insert(Context { sender, id, trace: None, route, caller: None });
        ResponseFuture { future: self.inner.call(request), id }
    }
}

pin_project! {
    /// Future of [`Contexts`].
    pub struct ResponseFuture<F> {
        #[pin]
        future: F,
        id: RequestId,
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut response = ready!(this.future.poll(cx))?;
        response.headers_mut().insert(X_REQUEST_ID, this.id.to_header());
        Poll::Ready(Ok(response))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{convert::Infallible, net::Ipv4Addr};

    use http::HeaderValue;
    use tower::{ServiceBuilder, ServiceExt, service_fn};

    use super::*;

    /// A route for tests of layers: `/open` needs no token, `/numbers...` issues numbers.
    pub(in crate::middleware) fn route_of(_: &Method, path: &str) -> RouteInfo {
        let access = if path == "/open" { Access::Open } else { Access::Token };
        let class = if path.starts_with("/numbers") { Class::Numbers } else { Class::Management };
        RouteInfo { index: 0, label: "/test", access, class }
    }

    /// The context of a request that comes straight from `sender`.
    pub(in crate::middleware) fn context(sender: IpAddr, path: &str) -> Context {
        Context {
            sender,
            id: Sequence::new().next(),
            trace: None,
            route: route_of(&Method::GET, path),
            caller: None,
        }
    }

    #[tokio::test]
    async fn the_id_stands_in_the_answer_and_the_context() {
        let layer = ContextLayer::new(Ipv4Addr::LOCALHOST.into(), &Arc::default(), route_of);
        let service = ServiceBuilder::new().layer(layer).service(service_fn(async |request: Request<()>| {
            let context = Context::of(&request).expect("set");
            Ok::<_, Infallible>(Response::new((context.clone(), context.id.as_str().to_owned())))
        }));
        let mut request = Request::get("/numbers/A").body(()).expect("valid");
        request.headers_mut().insert(X_REQUEST_ID, HeaderValue::from_static("from-the-caller"));
        let response = service.oneshot(request).await.expect("infallible");
        assert_eq!(response.headers()[X_REQUEST_ID], "from-the-caller");
        let (context, id) = response.into_body();
        assert_eq!((context.sender, context.route.class), (Ipv4Addr::LOCALHOST.into(), Class::Numbers));
        assert_eq!(id, "from-the-caller");
    }
}
