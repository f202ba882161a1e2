//! Keeps a link to one place: connects in the background, and again whenever it breaks.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    failure::Refusal,
    link::{Access, Hearing, Link},
    listen,
    place::Place,
};

/// The first wait between two attempts, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// How a line stands.
#[derive(Clone)]
pub(super) enum State {
    /// Connected.
    Up(Arc<Link>),
    /// Not connected, and why.
    Down(Arc<Refusal>),
}

/// A place and the link to it, if there is one.
pub(super) struct Line {
    state: watch::Receiver<State>,
    stop: CancellationToken,
}

impl Line {
    /// Connects in the background until the line is dropped.
    pub(super) fn start(access: Arc<Access>, place: Place) -> Self {
        let (sender, state) = watch::channel(State::Down(Arc::new(Refusal::New)));
        let stop = CancellationToken::new();
        let keeper = Keeper { access: Arc::clone(&access), place, sender };
        let (stopped, lifecycle) = (stop.clone(), access.lifecycle.clone());
        access.lifecycle.spawn_on(&access.runtime, async move {
            tokio::select! {
                () = keeper.keep() => {}
                () = stopped.cancelled() => {}
                () = lifecycle.draining() => {}
            }
        });
        Self { state, stop }
    }

    /// How it stands, now and later.
    pub(super) fn watch(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// The link, if it is up.
    pub(super) fn link(&self) -> Result<Arc<Link>, Arc<Refusal>> {
        match &*self.state.borrow() {
            State::Up(link) if !link.is_broken() => Ok(Arc::clone(link)),
            State::Up(link) => Err(Arc::new(Refusal::Broken { address: link.address().clone() })),
            State::Down(refusal) => Err(Arc::clone(refusal)),
        }
    }

    /// Waits for a link.
    pub(super) async fn ready(&self) -> Arc<Link> {
        let mut state = self.state.clone();
        loop {
            if let Ok(link) = self.link() {
                return link;
            }
            if state.changed().await.is_err() {
                // The keeper has ended with the process; the caller's deadline ends this.
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Keeper {
    access: Arc<Access>,
    place: Place,
    sender: watch::Sender<State>,
}

impl Keeper {
    async fn keep(mut self) {
        let mut attempt = 0;
        loop {
            match self.connect().await {
                Ok(link) => {
                    attempt = 0;
                    let cause = self.hold(Arc::new(link)).await;
                    self.down(cause);
                }
                Err(refusal) => self.down(Arc::new(refusal)),
            }
            tokio::time::sleep(wait(attempt)).await;
            attempt += 1;
        }
    }

    async fn connect(&mut self) -> Result<Link, Refusal> {
        let address = self.place.find().await?;
        let fitting = async {
            let link = self.access.open(&address).await?;
            self.place.check(&link).await?;
            Ok(link)
        };
        let fitting = fitting.await;
        if fitting.is_err() {
            self.place.pass_over();
        }
        fitting
    }

    /// Passes the link on until it breaks, or the line should lead elsewhere.
    async fn hold(&self, link: Arc<Link>) -> Arc<Refusal> {
        tracing::info!(address = %link.address(), version = link.info().get("redis_version"), "connected to Redis");
        self.sender.send_replace(State::Up(Arc::clone(&link)));
        tokio::select! {
            cause = link.broken() => cause,
            cause = self.place.moved(link.address()) => {
                link.give_up(cause);
                link.broken().await
            }
            never = async { link.watch().await; self.hear(&link).await } => match never {},
        }
    }

    /// Subscribes to every channel that somebody asks for.
    async fn hear(&self, link: &Link) -> std::convert::Infallible {
        match link.hearing() {
            _ if !self.place.is_heard() => std::future::pending().await,
            Hearing::Apart => listen::apart(&self.access, link.address()).await,
            Hearing::Pushed => {
                let mut heard = Vec::new();
                loop {
                    for channel in self.access.ears.channels() {
                        if !heard.contains(&channel) && link.subscribe(channel).await.is_ok() {
                            heard.push(channel);
                        }
                    }
                    self.access.ears.news.notified().await;
                }
            }
        }
    }

    /// Says it once: the log of an outage is two lines, not thousands.
    fn down(&self, cause: Arc<Refusal>) {
        let said = match &*self.sender.borrow() {
            State::Down(before) => before.to_string() == cause.to_string(),
            State::Up(_) => false,
        };
        if !said && cause.needs_a_person() {
            tracing::error!(error = %cause, "Redis is not used");
        } else if !said {
            tracing::warn!(error = %cause, "Redis is away");
        }
        self.sender.send_replace(State::Down(cause));
    }
}

/// Doubles from [`FIRST_WAIT`] to [`LONGEST_WAIT`]; half of it is chance, so that the nodes do not come back in step.
pub(super) fn wait(attempt: u32) -> Duration {
    let longest = FIRST_WAIT.saturating_mul(1 << attempt.min(10)).min(LONGEST_WAIT);
    let mut chance = [0];
    // Without randomness they come back in step.
    let _unchanged = getrandom::fill(&mut chance);
    longest / 2 + longest / 2 * u32::from(chance[0]) / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_second() {
        for (attempt, longest_ms) in [(0, 50), (1, 100), (4, 800), (5, 1_000), (u32::MAX, 1_000)] {
            let wait = wait(attempt).as_millis();
            assert!((longest_ms / 2..=longest_ms).contains(&wait), "{wait} ms at {attempt}");
        }
    }
}
