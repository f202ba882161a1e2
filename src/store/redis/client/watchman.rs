//! Says whether Redis can be asked, and blesses the markers of every server that comes.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::sync::watch;

use super::{Reachable, Shared, failure::Refusal, link::Link, markers};
use crate::clock::Clock;

/// What is so before anything was tried.
pub(super) fn nobody_yet(clock: &dyn Clock) -> Reachable {
    away(clock.monotonic(), &Refusal::New)
}

fn away(since: Duration, refusal: &Refusal) -> Reachable {
    Reachable::No { since, reason: refusal.to_string().into() }
}

/// Watches until the client is dropped.
pub(super) fn post(shared: &Arc<Shared>, sender: watch::Sender<Reachable>) {
    let clock = Arc::clone(&shared.clock);
    let (client, lifecycle) = (Arc::downgrade(shared), shared.access.lifecycle.clone());
    let until = lifecycle.clone();
    let mut changes = shared.route.changes();
    lifecycle.spawn_on(&shared.access.runtime, async move {
        let mut blessed = Vec::new();
        let watching =
            async { while look(&client, &sender, &*clock, &mut blessed) && changes.next().await.is_ok() {} };
        tokio::select! {
            () = watching => {}
            () = until.draining() => {}
        }
    });
}

/// Looks once; answers whether there still is a client.
fn look(
    client: &Weak<Shared>,
    sender: &watch::Sender<Reachable>,
    clock: &dyn Clock,
    blessed: &mut Vec<Weak<Link>>,
) -> bool {
    let Some(client) = client.upgrade() else { return false };
    let trouble = client.route.trouble();
    sender.send_if_modified(|before| {
        let now = match (trouble, &*before) {
            (None, _) => Reachable::Yes,
            (Some(refusal), Reachable::No { since, .. }) => away(*since, &refusal),
            (Some(refusal), Reachable::Yes) => away(clock.monotonic(), &refusal),
        };
        let changed = now != *before;
        *before = now;
        changed
    });
    blessed.retain(|link| link.strong_count() > 0);
    let is_new = |link: &Arc<Link>| !blessed.iter().any(|known| known.as_ptr() == Arc::as_ptr(link));
    for (link, slots) in client.route.shares(is_new) {
        blessed.push(Arc::downgrade(&link));
        // Apart from this task: other servers come and go meanwhile, and callers want to know of it.
        let (lifecycle, until) = (&client.access.lifecycle, client.access.lifecycle.clone());
        lifecycle.spawn_on(&client.access.runtime, async move {
            tokio::select! {
                () = markers::bless(&link, slots) => {}
                () = until.draining() => {}
            }
        });
    }
    true
}
