//! Where Redis is: `redis://`, `rediss://`, `redis+sentinel://`, `redis+cluster://`.

use std::fmt;

use percent_encoding::percent_decode_str;

use crate::secret::Secret;

/// The port of a Redis and of a sentinel, where none is written.
const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// Host and port of a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// A name or an address; IPv6 without its brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// How the servers hang together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    /// One server.
    Single(Address),
    /// Sentinels that know which server is the master.
    Sentinel {
        /// Some of the sentinels.
        sentinels: Vec<Address>,
        /// The name under which they watch the master.
        master: String,
    },
    /// A Redis Cluster, by some of its nodes.
    Cluster(Vec<Address>),
}

/// Whether the connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// As it is.
    Plain,
    /// TLS; the server's name is checked.
    Tls,
}

/// A parsed `NUMGEN_REDIS_URL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisUrl {
    /// How the servers hang together.
    pub topology: Topology,
    /// Whether connections are encrypted.
    pub transport: Transport,
    /// The user of the ACL, if not the default one.
    pub user: Option<String>,
    /// The password.
    pub password: Option<Secret<String>>,
    /// The database number; 0 in a cluster.
    pub database: u32,
}

/// What is wrong with a URL. Never repeats the URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRedisUrl {
    /// Another scheme, or none.
    #[error("it begins with redis://, rediss://, redis+sentinel:// or redis+cluster:// (TLS: rediss+...)")]
    Scheme,
    /// White space or a control character.
    #[error("it holds no white space")]
    Blank,
    /// An empty host, or a port that is none.
    #[error("each server is host:port with a port from 1 to 65535")]
    Server,
    /// Two servers without saying how they hang together.
    #[error("several servers need redis+sentinel:// or redis+cluster://")]
    Several,
    /// No name behind the sentinels.
    #[error("the name of the master comes behind the sentinels: redis+sentinel://host:26379/mymaster")]
    Master,
    /// A path that is no database number.
    #[error("behind the server comes at most a database number, such as /0")]
    Database,
    /// A cluster has one database.
    #[error("a cluster has only database 0")]
    ClusterDatabase,
    /// `?` or `#`.
    #[error("it ends with the path: no ? and no #, which a password writes as %3F and %23")]
    Query,
    /// A `%` that is not followed by two hexadecimal digits, or bytes that are no text.
    #[error("user and password are percent-encoded UTF-8: % is written %25")]
    Encoding,
}

impl Address {
    pub(super) fn parse(text: &str, default_port: u16) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(v6) => v6.split_once(']')?,
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok()?,
            Some(_) => return None,
            None if port.is_empty() => default_port,
            None => return None,
        };
        (port != 0 && !host.is_empty()).then(|| Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl RedisUrl {
    /// Its servers, for people.
    pub fn place(&self) -> String {
        let servers = match &self.topology {
            Topology::Single(server) => std::slice::from_ref(server),
            Topology::Sentinel { sentinels: servers, .. } | Topology::Cluster(servers) => servers,
        };
        servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    /// Takes a URL apart.
    ///
    /// # Errors
    ///
    /// What is wrong, without the URL.
    pub fn parse(url: &str) -> Result<Self, InvalidRedisUrl> {
        let url = url.trim();
        if url.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(InvalidRedisUrl::Blank);
        }
        let (scheme, rest) = url.split_once("://").ok_or(InvalidRedisUrl::Scheme)?;
        let scheme = scheme.to_ascii_lowercase();
        let (transport, kind) = match scheme.split_once('+').unwrap_or((&scheme, "")) {
            ("redis", kind) => (Transport::Plain, kind),
            ("rediss", kind) => (Transport::Tls, kind),
            _ => return Err(InvalidRedisUrl::Scheme),
        };
        // The last @: people write passwords that hold one. A slash in a password has to be encoded.
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (Some(login), rest),
            None => (None, rest),
        };
        if rest.contains(['?', '#']) {
            return Err(InvalidRedisUrl::Query);
        }
        let (user, password) = login.map_or(Ok((None, None)), parse_login)?;
        let (servers, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (topology, database) = topology(kind, servers, path)?;
        Ok(Self { topology, transport, user, password, database })
    }
}

fn topology(kind: &str, servers: &str, path: &str) -> Result<(Topology, u32), InvalidRedisUrl> {
    let port = if kind == "sentinel" { SENTINEL_PORT } else { REDIS_PORT };
    let servers: Option<Vec<_>> = servers.split(',').map(|server| Address::parse(server, port)).collect();
    let mut servers = servers.ok_or(InvalidRedisUrl::Server)?;
    match kind {
        "" => {
            let only = servers.pop().filter(|_| servers.is_empty()).ok_or(InvalidRedisUrl::Several)?;
            Ok((Topology::Single(only), database(path)?))
        }
        "sentinel" => {
            let (master, path) = path.split_once('/').unwrap_or((path, ""));
            if master.is_empty() {
                return Err(InvalidRedisUrl::Master);
            }
            let master = decoded(master)?;
            Ok((Topology::Sentinel { sentinels: servers, master }, database(path)?))
        }
        "cluster" if database(path)? == 0 => Ok((Topology::Cluster(servers), 0)),
        "cluster" => Err(InvalidRedisUrl::ClusterDatabase),
        _ => Err(InvalidRedisUrl::Scheme),
    }
}

fn database(path: &str) -> Result<u32, InvalidRedisUrl> {
    match path {
        "" => Ok(0),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().map_err(|_| InvalidRedisUrl::Database)
        }
        _ => Err(InvalidRedisUrl::Database),
    }
}

type Login = (Option<String>, Option<Secret<String>>);

fn parse_login(login: &str) -> Result<Login, InvalidRedisUrl> {
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let given = |text: String| (!text.is_empty()).then_some(text);
    Ok((given(decoded(user)?), given(decoded(password)?).map(Secret::new)))
}

/// Percent-encoded UTF-8.
fn decoded(text: &str) -> Result<String, InvalidRedisUrl> {
    let well_formed = text
        .split('%')
        .skip(1)
        .all(|part| part.get(..2).is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit())));
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| InvalidRedisUrl::Encoding)?;
    if well_formed { Ok(decoded.into_owned()) } else { Err(InvalidRedisUrl::Encoding) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> Address {
        Address { host: host.to_owned(), port }
    }

    #[test]
    fn a_single_server() {
        let url = RedisUrl::parse("redis://localhost").unwrap();
        assert_eq!(url.topology, Topology::Single(at("localhost", 6379)));
        assert_eq!((url.transport, url.user, url.password, url.database), (Transport::Plain, None, None, 0));

        let url = RedisUrl::parse("rediss://me:p%40ss%2Fw@[::1]:7000/3").unwrap();
        assert_eq!(url.topology, Topology::Single(at("::1", 7000)));
        assert_eq!((url.transport, url.database), (Transport::Tls, 3));
        assert_eq!(url.user.as_deref(), Some("me"));
        assert_eq!(url.password.unwrap().reveal(), "p@ss/w");
        assert_eq!(at("::1", 7000).to_string(), "[::1]:7000");

        let url = RedisUrl::parse("REDIS://:pa@ss@host/").unwrap();
        assert_eq!((url.user, url.password.unwrap().reveal().as_str()), (None, "pa@ss"));
    }

    #[test]
    fn sentinels_and_clusters() {
        let url = RedisUrl::parse("redis+sentinel://:pw@a:1,b,c:3/my-master/2").unwrap();
        let sentinels = vec![at("a", 1), at("b", 26379), at("c", 3)];
        assert_eq!(url.topology, Topology::Sentinel { sentinels, master: "my-master".to_owned() });
        assert_eq!(url.database, 2);

        let url = RedisUrl::parse("rediss+cluster://a:1,b:2,c").unwrap();
        assert_eq!(url.topology, Topology::Cluster(vec![at("a", 1), at("b", 2), at("c", 6379)]));
        assert_eq!(url.transport, Transport::Tls);
    }

    #[test]
    fn mistakes_are_named_and_never_repeat_the_url() {
        for (url, expected) in [
            ("http://a", InvalidRedisUrl::Scheme),
            ("redis:a", InvalidRedisUrl::Scheme),
            ("redis+proxy://a", InvalidRedisUrl::Scheme),
            ("redis://a b", InvalidRedisUrl::Blank),
            ("redis://", InvalidRedisUrl::Server),
            ("redis://a:0", InvalidRedisUrl::Server),
            ("redis://a:65536", InvalidRedisUrl::Server),
            ("redis://a:", InvalidRedisUrl::Server),
            ("redis://[::1", InvalidRedisUrl::Server),
            ("redis://[::1]7", InvalidRedisUrl::Server),
            ("redis+cluster://a:1,,b:2", InvalidRedisUrl::Server),
            ("redis://a,b", InvalidRedisUrl::Several),
            ("redis+sentinel://a", InvalidRedisUrl::Master),
            ("redis+sentinel://a/m/x", InvalidRedisUrl::Database),
            ("redis://a/x", InvalidRedisUrl::Database),
            ("redis://a/-1", InvalidRedisUrl::Database),
            ("redis+cluster://a/1", InvalidRedisUrl::ClusterDatabase),
            ("redis://a?db=1", InvalidRedisUrl::Query),
            ("redis://u:100%@a", InvalidRedisUrl::Encoding),
            ("redis://u:%ff@a", InvalidRedisUrl::Encoding),
        ] {
            assert_eq!(RedisUrl::parse(url).unwrap_err(), expected, "{url}");
        }
        assert!(!format!("{:?}", RedisUrl::parse("redis://u:canary@a")).contains("canary"));
    }
}
