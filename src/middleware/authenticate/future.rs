//! The future of a request.

use std::{
    future::Future,
    pin::Pin,
    task::{Context as TaskContext, Poll, ready},
};

use http::Request;
use pin_project_lite::pin_project;
use tower::{BoxError, Service};

use super::Unauthenticated;
use crate::{auth::Reconsideration, middleware::context::Context};

pin_project! {
    /// The answer of the service inside, or [`Unauthenticated`].
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B, S::Future>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, B, F> {
        Calling { #[pin] future: F },
        // Rare, and large: in a box of its own.
        Waiting { waiting: Box<Waiting<S, B>> },
        Refused { refusal: Option<Unauthenticated> },
    }
}

/// A request whose token waits for new keys.
struct Waiting<S, B> {
    reconsideration: Reconsideration,
    request: Option<Request<B>>,
    /// Ready to be called.
    inner: S,
}

impl<S, B> ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    pub(super) fn calling(future: S::Future) -> Self {
        Self { state: State::Calling { future } }
    }

    pub(super) fn refused(refusal: Unauthenticated) -> Self {
        Self { state: State::Refused { refusal: Some(refusal) } }
    }

    pub(super) fn waiting(reconsideration: Reconsideration, request: Request<B>, inner: S) -> Self {
        let waiting = Box::new(Waiting { reconsideration, request: Some(request), inner });
        Self { state: State::Waiting { waiting } }
    }
}

impl<S, B> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>>,
    S::Error: Into<BoxError>,
{
    type Output = Result<S::Response, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let future = match this.state.as_mut().project() {
                StateProjection::Calling { future } => return future.poll(cx).map_err(Into::into),
                StateProjection::Refused { refusal } => {
                    let refusal = refusal.take().expect("polled after completion");
                    return Poll::Ready(Err(refusal.into()));
                }
                StateProjection::Waiting { waiting } => {
                    let judgement = ready!(waiting.reconsideration.as_mut().poll(cx));
                    let mut request = waiting.request.take().expect("polled after completion");
                    match judgement {
                        Ok(claims) => Context::name_caller(&mut request, claims),
                        Err(rejection) => {
                            return Poll::Ready(Err(Unauthenticated::logged(rejection, &request).into()));
                        }
                    };
                    waiting.inner.call(request)
                }
            };
            this.state.set(State::Calling { future });
        }
    }
}
