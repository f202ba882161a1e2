//! Sentinels: they know which server is the master, and say so when it changes.

use std::{sync::Arc, time::Duration};

use super::{
    failure::Refusal,
    link::{Access, Link},
};
use crate::config::Address;

/// Where sentinels announce a new master: `name old-host old-port new-host new-port`.
const SWITCH: &str = "+switch-master";

/// How often a sentinel is asked all the same: it may itself have been cut off when it should have said something.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// Some of the sentinels that watch a master.
pub(super) struct Sentinels {
    addresses: Vec<Address>,
    master: String,
    /// Sentinels often have no password where the servers have one; then this one asks without.
    open: Access,
    locked: Access,
}

impl Sentinels {
    pub(super) fn new(addresses: Vec<Address>, master: String, access: &Access) -> Self {
        let locked = Access { database: 0, ears: Arc::default(), ..access.clone() };
        let open = Access { user: None, password: None, ears: Arc::default(), ..locked.clone() };
        Self { addresses, master, open, locked }
    }

    /// The master, by the first sentinel that answers; that one is asked first the next time.
    pub(super) async fn master(&mut self) -> Result<Address, Refusal> {
        let mut refusal = Refusal::New;
        for index in 0..self.addresses.len() {
            match self.ask(index).await {
                Ok((_link, master)) => {
                    self.addresses.rotate_left(index);
                    return Ok(master);
                }
                Err(why) => refusal = why,
            }
        }
        Err(refusal)
    }

    /// Resolves when a sentinel names another master than `present`.
    pub(super) async fn moved(&self, present: &Address) -> Refusal {
        loop {
            for index in 0..self.addresses.len() {
                if let Ok((link, named)) = self.ask(index).await
                    && (named != *present || self.follow(&link, present).await)
                {
                    return Refusal::Replaced { address: present.clone() };
                }
            }
            // All of them are away: that alone is no reason to leave a master that works.
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Until this sentinel names another master (true), or is lost.
    async fn follow(&self, link: &Link, present: &Address) -> bool {
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
            match self.named_by(link).await {
                Ok(named) if named == *present => {}
                Ok(_other) => return true,
                Err(_lost) => return false,
            }
        }
    }

    async fn ask(&self, index: usize) -> Result<(Link, Address), Refusal> {
        let address = &self.addresses[index];
        let link = match self.open.open(address).await {
            Err(Refusal::Refused { .. }) if self.locked.password.is_some() => {
                self.locked.open(address).await?
            }
            outcome => outcome?,
        };
        let named = self.named_by(&link).await?;
        Ok((link, named))
    }

    async fn named_by(&self, link: &Link) -> Result<Address, Refusal> {
        let mut question = redis::cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
        let reply = link.send_soon(&question).await?;
        match redis::from_redis_value::<Option<(String, u16)>>(reply) {
            Ok(Some((host, port))) => Ok(Address { host, port }),
            Ok(None) | Err(_) => {
                Err(Refusal::Unwatched { address: link.address().clone(), master: self.master.clone() })
            }
        }
    }
}
