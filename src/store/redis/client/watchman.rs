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
        let watching = async {
            while look(&client, &sender, &*clock, &mut blessed).await && changes.next().await.is_ok() {}
        };
        tokio::select! {
            () = watching => {}
            () = until.draining() => {}
        }
    });
}

/// Looks once; answers whether there still is a client.
async fn look(
    client: &Weak<Shared>,
    sender: &watch::Sender<Reachable>,
    clock: &dyn Clock,
    blessed: &mut Vec<Weak<Link>>,
) -> bool {
    let shares = {
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
        client.route.shares(|link| !blessed.iter().any(|known| known.as_ptr() == Arc::as_ptr(link)))
    };
    for (link, slots) in shares {
        blessed.push(Arc::downgrade(&link));
        markers::bless(&link, slots).await;
    }
    true
}
