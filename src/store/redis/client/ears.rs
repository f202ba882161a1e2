//! Who listens to which channel.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use redis::{PushInfo, PushKind, Value};
use tokio::sync::{Notify, broadcast, watch};

/// Messages that a slow listener may be behind before it loses some.
const BACKLOG: usize = 256;

/// The channels that somebody asked for. They outlive connections: each new one subscribes to all.
#[derive(Debug, Default)]
pub(super) struct Ears {
    channels: Mutex<BTreeMap<&'static str, broadcast::Sender<String>>>,
    /// Rings when a channel is new.
    pub(super) news: Notify,
    /// Counts reports of writes to watched keys, and connections over which they come.
    alarms: watch::Sender<u64>,
}

impl Ears {
    /// Messages of `channel` from now on.
    pub(super) fn listen(&self, channel: &'static str) -> broadcast::Receiver<String> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let known = channels.len();
        let receiver = channels.entry(channel).or_insert_with(|| broadcast::Sender::new(BACKLOG)).subscribe();
        if channels.len() > known {
            self.news.notify_one();
        }
        receiver
    }

    /// Every channel.
    pub(super) fn channels(&self) -> Vec<&'static str> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// Passes a message on; nobody may be listening any more.
    pub(super) fn hear(&self, channel: &str, message: String) {
        let channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = channels.get(channel) {
            let _unheard = sender.send(message);
        }
    }

    /// Somebody may have written to a watched key.
    pub(super) fn raise_alarm(&self) {
        self.alarms.send_modify(|count| *count += 1);
    }

    /// How often that was so.
    pub(super) fn alarms(&self) -> watch::Receiver<u64> {
        self.alarms.subscribe()
    }

    /// A RESP3 push: `message`, channel, text; or `invalidate`, keys.
    pub(super) fn hear_push(&self, push: PushInfo) {
        if push.kind == PushKind::Invalidate {
            self.raise_alarm();
        } else if push.kind == PushKind::Message
            && let [channel, message] = push.data.as_slice()
            && let (Some(channel), Some(message)) = (text(channel), text(message))
        {
            self.hear(&channel, message.into_owned());
        }
    }
}

fn text(value: &Value) -> Option<Cow<'_, str>> {
    if let Value::BulkString(bytes) = value {
        Some(String::from_utf8_lossy(bytes))
    } else if let Value::SimpleString(text) = value {
        Some(text.into())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_reach_those_who_asked_for_the_channel() {
        let ears = Ears::default();
        ears.hear("rules", "nobody listens".to_owned());
        let mut rules = ears.listen("rules");
        let data = |channel: &str| {
            ["", channel, "changed"][1..].iter().map(|t| Value::BulkString((*t).into())).collect()
        };
        ears.hear_push(PushInfo { kind: PushKind::Message, data: data("other") });
        ears.hear_push(PushInfo { kind: PushKind::Subscribe, data: data("rules") });
        ears.hear_push(PushInfo { kind: PushKind::Message, data: data("rules") });
        assert_eq!(rules.try_recv().unwrap(), "changed");
        assert!(rules.try_recv().is_err(), "nothing else");
        assert_eq!(ears.channels(), ["rules"]);
        assert_eq!(*ears.alarms().borrow(), 0);
        // After FLUSHALL there are no keys in it.
        ears.hear_push(PushInfo { kind: PushKind::Invalidate, data: vec![Value::Nil] });
        assert_eq!(*ears.alarms().borrow(), 1);
    }
}
