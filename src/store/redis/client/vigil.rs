//! Whether others have written to the keys that people write to directly: the server says so, by client-side caching's broadcast
//! (`CLIENT TRACKING ON BCAST`).
//!
//! Invariant: a write that comes after [`Client::vigil`] has answered `Kept` raises the count, or the connection is lost and its
//! successor raises it. So whoever has looked at everything under a count needs not look again while `Kept` shows the same.

use tokio::sync::watch;

use super::Client;

/// How much is known of writes by others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vigil {
    /// The server of the key reports them. The count rises with each report, and with each new connection.
    Kept(u64),
    /// Writes may go unnoticed: no connection, no RESP3, or no permission.
    None(u64),
}

impl Vigil {
    /// The count.
    pub fn count(self) -> u64 {
        match self {
            Self::Kept(count) | Self::None(count) => count,
        }
    }
}

impl Client {
    /// What is known of writes by others to `key`, which must be one of those that are watched.
    pub fn vigil(&self, key: &str) -> Vigil {
        let is_watched = self.shared.route.link(key.as_bytes()).is_ok_and(|link| link.is_watched());
        // After the link: a new one is watched before it is counted.
        let count = *self.shared.access.ears.alarms().borrow();
        if is_watched { Vigil::Kept(count) } else { Vigil::None(count) }
    }

    /// The count, now and later.
    pub fn alarms(&self) -> watch::Receiver<u64> {
        self.shared.access.ears.alarms()
    }
}
