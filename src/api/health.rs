//! The admin listener's answers: is the process alive, may it be sent traffic, its metrics.

use std::{
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use http::{Method, Request, Response, StatusCode};
use serde_json::{Map, Value, json};
use tower::Service;

use super::Error;
use crate::body::{self, Body};

/// One part of the service as `/readyz` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// What it is: `rules`, `worker`, `store` ...
    pub name: &'static str,
    /// `ok`, or what is wrong with it, without secrets.
    pub state: String,
}

/// What `/readyz` answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Whether traffic is welcome.
    pub ready: bool,
    /// `ready`, `degraded`, `draining` or `unready`.
    pub status: &'static str,
    /// Each component.
    pub components: Vec<Component>,
}

/// Where the admin listener looks.
pub trait Health: Send + Sync + 'static {
    /// How the service stands.
    fn readiness(&self) -> Readiness;

    /// Metrics in the Prometheus text format.
    fn metrics(&self) -> String;
}

/// The admin service.
#[derive(Clone)]
pub struct Admin {
    health: Arc<dyn Health>,
}

impl Admin {
    /// A service that reports `health`.
    pub fn new(health: Arc<dyn Health>) -> Self {
        Self { health }
    }

    fn answer<B>(&self, request: &Request<B>) -> Result<Response<Body>, Error> {
        let get = |answer: Response<Body>| match *request.method() {
            Method::GET | Method::HEAD => Ok(answer),
            _ => Err(Error::MethodNotAllowed { allow: "GET, HEAD" }),
        };
        match request.uri().path() {
            "/livez" => get(body::json(StatusCode::OK, r#"{"status":"alive"}"#)),
            "/readyz" => get(readyz(&self.health.readiness())),
            "/metrics" => get(body::full(StatusCode::OK, "text/plain; version=0.0.4", self.health.metrics())),
            _ => Err(Error::NotFound),
        }
    }
}

fn readyz(readiness: &Readiness) -> Response<Body> {
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let components: Map<String, Value> = readiness
        .components
        .iter()
        .map(|component| (component.name.to_owned(), json!(component.state)))
        .collect();
    body::json(status, json!({"status": readiness.status, "components": components}).to_string())
}

impl<B> Service<Request<B>> for Admin {
    type Response = Response<Body>;
    type Error = Error;
    type Future = Ready<Result<Response<Body>, Error>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ready(self.answer(&request))
    }
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt;

    use super::*;

    struct Fixed(Readiness);

    impl Health for Fixed {
        fn readiness(&self) -> Readiness {
            self.0.clone()
        }

        fn metrics(&self) -> String {
            "numgen_build_info 1\n".into()
        }
    }

    async fn status(ready: bool, method: Method, path: &str) -> Result<StatusCode, String> {
        let components = vec![Component { name: "rules", state: "ok".into() }];
        let admin = Admin::new(Arc::new(Fixed(Readiness { ready, status: "ready", components })));
        let request = Request::builder().method(method).uri(path).body(()).expect("valid");
        admin.oneshot(request).await.map(|answer| answer.status()).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn alive_is_not_ready() {
        assert_eq!(status(false, Method::GET, "/livez").await, Ok(StatusCode::OK));
        assert_eq!(status(false, Method::GET, "/readyz").await, Ok(StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(status(true, Method::HEAD, "/readyz").await, Ok(StatusCode::OK));
        assert_eq!(status(true, Method::GET, "/metrics").await, Ok(StatusCode::OK));
    }

    #[tokio::test]
    async fn nothing_else_is_there() {
        assert!(status(true, Method::GET, "/numbers").await.is_err());
        assert!(status(true, Method::POST, "/readyz").await.is_err());
    }
}
