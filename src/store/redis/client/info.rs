//! What `INFO` says about a server.

use std::collections::HashMap;

use super::failure::Refusal;
use crate::config::Address;

/// The lowest version that will do: (major, minor).
const LEAST_VERSION: (u32, u32) = (6, 2);

/// The fields of `INFO`.
#[derive(Clone, Debug, Default)]
pub(super) struct Info(HashMap<String, String>);

impl Info {
    pub(super) fn parse(text: &str) -> Self {
        let field = |line: &str| line.trim_end().split_once(':').map(|(k, v)| (k.to_owned(), v.to_owned()));
        Self(text.lines().filter_map(field).collect())
    }

    pub(super) fn get(&self, field: &str) -> Option<&str> {
        self.0.get(field).map(String::as_str)
    }

    /// `Redis 7.0.15`, `Valkey 8.0.1`.
    pub(super) fn flavour(&self) -> String {
        match (self.get("valkey_version"), self.get("redis_version")) {
            (Some(version), _) => format!("Valkey {version}"),
            (None, version) => format!("Redis {}", version.unwrap_or("of an unknown version")),
        }
    }

    pub(super) fn is_master(&self) -> bool {
        self.get("role") == Some("master")
    }

    pub(super) fn is_cluster_node(&self) -> bool {
        self.get("cluster_enabled") == Some("1")
    }

    /// Whether the server may be used at all, whatever its role.
    pub(super) fn check(&self, address: &Address) -> Result<(), Refusal> {
        let address = || address.clone();
        if self.get("loading").is_some_and(|loading| loading != "0") {
            return Err(Refusal::Loading { address: address() });
        }
        let version = self.get("redis_version").unwrap_or_default();
        if numbers(version) < LEAST_VERSION {
            return Err(Refusal::TooOld { address: address(), version: version.to_owned() });
        }
        match self.get("maxmemory_policy") {
            Some(policy) if policy != "noeviction" => {
                Err(Refusal::Evicting { address: address(), policy: policy.to_owned() })
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// `7.0.15` -> (7, 0). Valkey says 7.2.4 here, the version of Redis that it is compatible with.
fn numbers(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfit_servers_are_refused_by_name() {
        let address = Address { host: "redis.example".to_owned(), port: 6379 };
        let check = |info: &str| Info::parse(info).check(&address).map_err(|refusal| refusal.to_string());
        assert_eq!(
            check("# Server\r\nredis_version:7.0.15\r\nmaxmemory_policy:noeviction\r\nloading:0\r\n"),
            Ok(())
        );
        assert_eq!(check("redis_version:6.2.0\r\n"), Ok(()));
        for (info, expected) in [
            ("redis_version:6.0.16\r\n", "has version 6.0.16"),
            ("", "has version "),
            ("redis_version:7.2.4\r\nloading:1\r\n", "is loading"),
            (
                "redis_version:7.2.4\r\nmaxmemory_policy:volatile-lru\r\n",
                "CONFIG SET maxmemory-policy noeviction",
            ),
        ] {
            let said = check(info).unwrap_err();
            assert!(said.contains(expected) && said.contains("redis.example:6379"), "{said}");
        }
    }
}
