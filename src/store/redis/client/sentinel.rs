//! Sentinels: they know which server is the master, and say so when it changes.
//!
//! Each of them may be wrong for as long as it is cut off from the others, or was started with an old file. So all are asked, and the
//! latest failover counts (`config-epoch`); among those that know of the same one, what most of them say.
//!
//! Invariants: nobody goes to the master of an earlier failover than the one that he knows of, and nobody leaves a master that he has but
//! for that of a later one; unless most of the sentinels name it.

use std::{
    cmp::Reverse,
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, future::select_all, stream::FuturesUnordered};

use super::{
    failure::Refusal,
    link::{Access, Link},
};
use crate::config::Address;

/// Where sentinels announce a new master: `name old-host old-port new-host new-port`.
const SWITCH: &str = "+switch-master";

/// How often a sentinel is asked all the same: it may itself have been cut off when it should have said something.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// How long the others are waited for once one has answered: a host that is gone may have had a sentinel on it.
const OTHERS: Duration = Duration::from_millis(200);

/// What one sentinel says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    master: Address,
    /// `config-epoch`: it rises with each failover.
    epoch: u64,
}

/// Some of the sentinels that watch a master.
pub(super) struct Sentinels {
    addresses: Vec<Address>,
    master: String,
    /// Of the failover by which the server that was found last became the master.
    epoch: u64,
    /// Sentinels often have no password where the servers have one; then this one asks without.
    open: Access,
    locked: Access,
}

impl Sentinels {
    pub(super) fn new(addresses: Vec<Address>, master: String, access: &Access) -> Self {
        let locked = Access { database: 0, ears: Arc::default(), ..access.clone() };
        let open = Access { user: None, password: None, ears: Arc::default(), ..locked.clone() };
        Self { addresses, master, epoch: 0, open, locked }
    }

    /// The master, by the sentinels that answer.
    pub(super) async fn master(&mut self) -> Result<Address, Refusal> {
        let (mut words, mut refusal) = (vec![None; self.addresses.len()], Refusal::New);
        {
            let this = &*self;
            let asked = (0..this.addresses.len()).map(|index| async move { (index, this.ask(index).await) });
            let mut asked: FuturesUnordered<_> = asked.collect();
            let mut others = None;
            loop {
                let answer = async {
                    match others {
                        None => asked.next().await,
                        Some(until) => tokio::time::timeout_at(until, asked.next()).await.ok().flatten(),
                    }
                };
                match answer.await {
                    Some((index, Ok((_link, word)))) => {
                        words[index] = Some(word);
                        others = others.or_else(|| Some(tokio::time::Instant::now() + OTHERS));
                    }
                    Some((_, Err(why))) => refusal = why,
                    None => break,
                }
            }
        }
        match best(&words) {
            Some((word, is_of_most)) if is_of_most || word.epoch >= self.epoch => {
                self.epoch = word.epoch;
                Ok(word.master.clone())
            }
            Some(_) | None => Err(refusal),
        }
    }

    /// Prefers the word of another sentinel, where several are as good: the master that was named is none, or not there.
    pub(super) fn pass_over(&mut self) {
        self.addresses.rotate_left(1);
    }

    /// Resolves when the sentinels name another master than `present`.
    pub(super) async fn moved(&self, present: &Address) -> Refusal {
        let words = Mutex::new(vec![None; self.addresses.len()]);
        let note = |index: usize, word: Option<Word>| {
            let mut words = words.lock().unwrap_or_else(PoisonError::into_inner);
            words[index] = word;
            best(&words).is_some_and(|(word, is_of_most)| {
                word.master != *present && (is_of_most || word.epoch > self.epoch)
            })
        };
        let note = &note;
        let followed = (0..self.addresses.len()).map(|index| {
            Box::pin(async move {
                loop {
                    if let Ok((link, word)) = self.ask(index).await
                        && (note(index, Some(word))
                            || self.follow(&link, |word| note(index, Some(word))).await)
                    {
                        return;
                    }
                    // One that is away is heard no more; that all of them are is no reason to leave a master that works.
                    note(index, None);
                    tokio::time::sleep(ASK_EVERY).await;
                }
            })
        });
        select_all(followed).await;
        Refusal::Replaced { address: present.clone() }
    }

    /// Passes on what this sentinel says until that is enough (true), or it is lost.
    async fn follow(&self, link: &Link, mut is_enough: impl FnMut(Word) -> bool) -> bool {
        let mut switches = link.ears().listen(SWITCH);
        if link.subscribe(SWITCH).await.is_err() {
            // RESP2: asking has to do.
            tracing::debug!("a sentinel without RESP3 is asked, not heard");
        }
        loop {
            tokio::select! {
                _cause = link.broken() => return false,
                Ok(message) = switches.recv() => {
                    let ours = message.split(' ').next() == Some(self.master.as_str());
                    if !ours {
                        continue;
                    }
                }
                () = tokio::time::sleep(ASK_EVERY) => {}
            }
            let Ok(word) = self.word_of(link).await else { return false };
            if is_enough(word) {
                return true;
            }
        }
    }

    async fn ask(&self, index: usize) -> Result<(Link, Word), Refusal> {
        let address = &self.addresses[index];
        let link = match self.open.open(address).await {
            Err(Refusal::Refused { .. }) if self.locked.password.is_some() => {
                self.locked.open(address).await?
            }
            outcome => outcome?,
        };
        let word = self.word_of(&link).await?;
        Ok((link, word))
    }

    async fn word_of(&self, link: &Link) -> Result<Word, Refusal> {
        let question = |what: &str| {
            let mut question = redis::cmd("SENTINEL");
            question.arg(what).arg(&self.master);
            question
        };
        // In the middle of a failover this one names the new master, and the fields of `MASTER` the old one.
        let reply = link.send_soon(&question("GET-MASTER-ADDR-BY-NAME")).await?;
        let Ok(Some((host, port))) = redis::from_redis_value::<Option<(String, u16)>>(reply) else {
            return Err(Refusal::Unwatched { address: link.address().clone(), master: self.master.clone() });
        };
        // Who may not ask for it has a sentinel that knows of no failover.
        let fields = link.send_soon(&question("MASTER")).await.ok();
        let fields =
            fields.and_then(|fields| redis::from_redis_value::<HashMap<String, String>>(fields).ok());
        let epoch = fields.and_then(|fields| fields.get("config-epoch")?.parse().ok());
        Ok(Word { master: Address { host, port }, epoch: epoch.unwrap_or_default() })
    }
}

/// The word of the latest failover, and among sentinels that know of the same one what most of them say, and then the first; and whether most
/// of all sentinels say it, also of those that are silent.
fn best(words: &[Option<Word>]) -> Option<(&Word, bool)> {
    let said = || words.iter().flatten();
    let votes = |word: &Word| said().filter(|other| *other == word).count();
    let best = said().enumerate().max_by_key(|(at, word)| (word.epoch, votes(word), Reverse(*at)));
    best.map(|(_, word)| (word, 2 * votes(word) > words.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(port: u16, epoch: u64) -> Option<Word> {
        Some(Word { master: Address { host: "h".to_owned(), port }, epoch })
    }

    #[track_caller]
    fn assert_best(words: &[Option<Word>], port: u16, is_of_most: bool) {
        assert_eq!(best(words).map(|(word, of_most)| (word.master.port, of_most)), Some((port, is_of_most)));
    }

    #[test]
    fn the_latest_failover_counts() {
        assert_best(&[word(1, 4), word(2, 5), word(2, 5)], 2, true);
        assert_best(&[word(1, 4), word(1, 4), word(2, 5)], 2, false);
        assert_best(&[word(1, 4), None, None], 1, false);
        assert_eq!(best(&[None, None, None]), None);
    }

    #[test]
    fn most_of_those_who_know_as_much_decide() {
        assert_best(&[word(1, 0), word(2, 0), word(2, 0)], 2, true);
        assert_best(&[word(1, 0), None, word(2, 0), word(2, 0)], 2, false);
        assert_best(&[word(1, 0), word(2, 0)], 1, false);
    }
}
