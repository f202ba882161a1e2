//! The future of a request.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower::BoxError;

use super::{Exceeded, address::Charge};

pin_project! {
    /// The answer of the service inside, or [`Exceeded`].
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
        // Whom to charge if the answer is a refusal.
        charge: Option<Arc<Charge>>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Calling { #[pin] future: F },
        Refused { refusal: Option<Exceeded> },
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn calling(future: F) -> Self {
        Self { state: State::Calling { future }, charge: None }
    }

    pub(super) fn charging(future: F, charge: Arc<Charge>) -> Self {
        Self { state: State::Calling { future }, charge: Some(charge) }
    }

    pub(super) fn refused(refusal: Exceeded) -> Self {
        Self { state: State::Refused { refusal: Some(refusal) }, charge: None }
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let outcome = match this.state.project() {
            StateProjection::Calling { future } => ready!(future.poll(cx)).map_err(Into::into),
            StateProjection::Refused { refusal } => {
                Err(refusal.take().expect("polled after completion").into())
            }
        };
        if let (Err(error), Some(charge)) = (&outcome, this.charge) {
            charge.settle(error);
        }
        Poll::Ready(outcome)
    }
}
