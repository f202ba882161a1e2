//! Hearing messages over a connection of its own, for servers that do not speak RESP3.

use std::{convert::Infallible, sync::Arc};

use futures_util::StreamExt;
use redis::aio::PubSub;

use super::{ears::Ears, line::wait, link::Access};
use crate::config::Address;

/// Hears every channel that somebody asked for at this server, for as long as the caller lets it.
pub(super) async fn apart(access: &Access, address: &Address) -> Infallible {
    let mut attempt = 0;
    loop {
        if let Ok(connection) = access.listen(address).await {
            hear(connection, &access.ears).await;
        }
        tokio::time::sleep(wait(attempt)).await;
        attempt = attempt.saturating_add(1);
    }
}

async fn hear(connection: PubSub, ears: &Arc<Ears>) {
    let (mut sink, mut messages) = connection.split();
    let mut heard = Vec::new();
    loop {
        for channel in ears.channels() {
            if !heard.contains(&channel) {
                if sink.subscribe(channel).await.is_err() {
                    return;
                }
                heard.push(channel);
            }
        }
        tokio::select! {
            message = messages.next() => {
                let Some(message) = message else { return };
                ears.hear(message.get_channel_name(), message.get_payload().unwrap_or_default());
            }
            () = ears.news.notified() => {}
        }
    }
}
