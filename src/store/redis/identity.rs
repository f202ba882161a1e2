//! Which Redis this is: a random name that it keeps, so that two of them cannot pass for one data centre.

use std::time::Duration;

use super::{RedisStore, client::Script};
use crate::store::StoreError;

/// The name of the key; in a cluster it lies where it lies.
pub(super) const KEY: &str = "numgen:redis";

const DEADLINE: Duration = Duration::from_secs(1);

static NAME: Script = Script::new("name_redis", include_str!("name.lua"));

impl RedisStore {
    /// The name of this Redis; where it has none, it is called `otherwise` from now on. Whoever has known its name for long gives it back
    /// that way to one that was emptied.
    ///
    /// # Errors
    ///
    /// Redis is away.
    pub async fn identity(&self, otherwise: Option<&str>) -> Result<Option<String>, StoreError> {
        let otherwise = otherwise.unwrap_or_default();
        self.client.run(&NAME, &[KEY.to_owned()], &[otherwise.into()], DEADLINE).await
    }
}
