//! Where PostgreSQL is: `postgres://user:password@host:5432/database?sslmode=verify-full`.

use std::{fmt, path::PathBuf};

use percent_encoding::percent_decode_str;

use super::redis_url::Address;
use crate::secret::Secret;

/// The port where none is written.
const PORT: u16 = 5432;

/// Where the server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseHost {
    /// Host and port.
    Tcp(Address),
    /// A socket in a directory of this machine.
    Socket {
        /// The directory.
        directory: PathBuf,
        /// The port, which is part of the socket's name.
        port: u16,
    },
}

/// How far the server has to prove who it is (`sslmode` of libpq).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verification {
    /// Without TLS.
    Disable,
    /// TLS where the server offers it, any certificate.
    Prefer,
    /// TLS, any certificate.
    Require,
    /// TLS, a certificate of a trusted authority.
    Authority,
    /// TLS, a certificate of a trusted authority for this host.
    Full,
}

/// A parsed `NUMGEN_DATABASE_URL`. `Display` shows where the database is, without a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseUrl {
    /// Where the server listens.
    pub host: DatabaseHost,
    /// The role; the name of the operating system's user unless given.
    pub user: Option<String>,
    /// The password.
    pub password: Option<Secret<String>>,
    /// The database.
    pub database: String,
    /// How far the server has to prove who it is, where the URL says so.
    pub verification: Option<Verification>,
}

/// What is wrong with a URL. Never repeats the URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDatabaseUrl {
    /// Another scheme, or none.
    #[error("it begins with postgres:// or postgresql://")]
    Scheme,
    /// White space or a control character.
    #[error("it holds no white space")]
    Blank,
    /// An empty host, or a port that is none.
    #[error("the server is host:port with a port from 1 to 65535; a socket is ?host=/directory")]
    Server,
    /// Two servers.
    #[error("it names one server; put a proxy or a name that moves with the primary in front of several")]
    Several,
    /// No database.
    #[error("the name of the database comes behind the server: postgres://host/numgen")]
    Database,
    /// A parameter that is not known here.
    #[error("behind ? come at most sslmode and host")]
    Parameter,
    /// An unknown sslmode.
    #[error("sslmode is disable, prefer, require, verify-ca or verify-full")]
    Verification,
    /// A `%` that is not followed by two hexadecimal digits, or bytes that are no text.
    #[error("user, password and database are percent-encoded UTF-8: % is written %25")]
    Encoding,
}

impl DatabaseUrl {
    /// Takes a URL apart.
    ///
    /// # Errors
    ///
    /// What is wrong, without the URL.
    pub fn parse(url: &str) -> Result<Self, InvalidDatabaseUrl> {
        let url = url.trim();
        if url.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(InvalidDatabaseUrl::Blank);
        }
        let (scheme, rest) = url.split_once("://").ok_or(InvalidDatabaseUrl::Scheme)?;
        if !["postgres", "postgresql"].contains(&scheme.to_ascii_lowercase().as_str()) {
            return Err(InvalidDatabaseUrl::Scheme);
        }
        // The last @: people write passwords that hold one. A slash or a ? in a password has to be encoded.
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (Some(login), rest),
            None => (None, rest),
        };
        let (user, password) = login.map_or(Ok((None, None)), parse_login)?;
        let (location, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (server, path) = location.split_once('/').unwrap_or((location, ""));
        let parameters = Parameters::parse(query)?;
        let host = match parameters.socket {
            Some(directory) => socket(directory, server)?,
            None if server.contains(',') => return Err(InvalidDatabaseUrl::Several),
            None => DatabaseHost::Tcp(Address::parse(server, PORT).ok_or(InvalidDatabaseUrl::Server)?),
        };
        let database = decoded(path)?;
        if database.is_empty() {
            return Err(InvalidDatabaseUrl::Database);
        }
        Ok(Self { host, user, password, database, verification: parameters.verification })
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            DatabaseHost::Tcp(address) => write!(f, "{address}/{}", self.database),
            DatabaseHost::Socket { directory, port } => {
                write!(f, "{}/.s.PGSQL.{port}/{}", directory.display(), self.database)
            }
        }
    }
}

#[derive(Default)]
struct Parameters {
    socket: Option<PathBuf>,
    verification: Option<Verification>,
}

impl Parameters {
    fn parse(query: &str) -> Result<Self, InvalidDatabaseUrl> {
        let mut parameters = Self::default();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("sslmode", mode)) => parameters.verification = Some(verification(mode)?),
                Some(("host", directory)) => {
                    let directory = decoded(directory)?;
                    if !directory.starts_with('/') {
                        return Err(InvalidDatabaseUrl::Server);
                    }
                    parameters.socket = Some(directory.into());
                }
                Some(_) | None => return Err(InvalidDatabaseUrl::Parameter),
            }
        }
        Ok(parameters)
    }
}

fn verification(mode: &str) -> Result<Verification, InvalidDatabaseUrl> {
    Ok(match mode {
        "disable" => Verification::Disable,
        "prefer" => Verification::Prefer,
        "require" => Verification::Require,
        "verify-ca" => Verification::Authority,
        "verify-full" => Verification::Full,
        _ => return Err(InvalidDatabaseUrl::Verification),
    })
}

/// What stands in place of the server is at most a port.
fn socket(directory: PathBuf, server: &str) -> Result<DatabaseHost, InvalidDatabaseUrl> {
    let port = match server.strip_prefix(':') {
        Some(digits) => digits.parse().ok().filter(|port| *port != 0).ok_or(InvalidDatabaseUrl::Server)?,
        None if server.is_empty() || server == "localhost" => PORT,
        None => return Err(InvalidDatabaseUrl::Server),
    };
    Ok(DatabaseHost::Socket { directory, port })
}

type Login = (Option<String>, Option<Secret<String>>);

fn parse_login(login: &str) -> Result<Login, InvalidDatabaseUrl> {
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let given = |text: String| (!text.is_empty()).then_some(text);
    Ok((given(decoded(user)?), given(decoded(password)?).map(Secret::new)))
}

fn decoded(text: &str) -> Result<String, InvalidDatabaseUrl> {
    let well_formed = text
        .split('%')
        .skip(1)
        .all(|part| part.get(..2).is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit())));
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| InvalidDatabaseUrl::Encoding)?;
    if well_formed { Ok(decoded.into_owned()) } else { Err(InvalidDatabaseUrl::Encoding) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> DatabaseHost {
        DatabaseHost::Tcp(Address { host: host.to_owned(), port })
    }

    #[test]
    fn a_server_and_a_database() {
        let url = DatabaseUrl::parse("postgres://localhost/numgen").unwrap();
        assert_eq!((url.host, url.database.as_str()), (at("localhost", 5432), "numgen"));
        assert_eq!((url.user, url.password, url.verification), (None, None, None));

        let url =
            DatabaseUrl::parse("POSTGRESQL://me:p%40s@s%2F@[::1]:7000/a%20b?sslmode=verify-full").unwrap();
        assert_eq!(url.to_string(), "[::1]:7000/a b");
        assert_eq!((url.host, url.database.as_str()), (at("::1", 7000), "a b"));
        assert_eq!((url.user.as_deref(), url.password.unwrap().reveal().as_str()), (Some("me"), "p@s@s/"));
        assert_eq!(url.verification, Some(Verification::Full));
    }

    #[test]
    fn a_socket() {
        let url = DatabaseUrl::parse("postgres://me@:5433/numgen?host=/run/postgresql").unwrap();
        let directory = PathBuf::from("/run/postgresql");
        assert_eq!(url.host, DatabaseHost::Socket { directory: directory.clone(), port: 5433 });
        let url = DatabaseUrl::parse("postgres:///numgen?host=%2Frun%2Fpostgresql&sslmode=disable").unwrap();
        assert_eq!(url.host, DatabaseHost::Socket { directory, port: 5432 });
    }

    #[test]
    fn mistakes_are_named_and_never_repeat_the_url() {
        for (url, expected) in [
            ("mysql://a/b", InvalidDatabaseUrl::Scheme),
            ("postgres:a/b", InvalidDatabaseUrl::Scheme),
            ("postgres://a/b c", InvalidDatabaseUrl::Blank),
            ("postgres:///b", InvalidDatabaseUrl::Server),
            ("postgres://a:0/b", InvalidDatabaseUrl::Server),
            ("postgres://a:65536/b", InvalidDatabaseUrl::Server),
            ("postgres://a/b?host=c", InvalidDatabaseUrl::Server),
            ("postgres://a/b?host=/c", InvalidDatabaseUrl::Server),
            ("postgres://a:1,c:2/b", InvalidDatabaseUrl::Several),
            ("postgres://a", InvalidDatabaseUrl::Database),
            ("postgres://a/", InvalidDatabaseUrl::Database),
            ("postgres://a/b?sslrootcert=/x", InvalidDatabaseUrl::Parameter),
            ("postgres://a/b?sslmode=on", InvalidDatabaseUrl::Verification),
            ("postgres://u:100%@a/b", InvalidDatabaseUrl::Encoding),
        ] {
            assert_eq!(DatabaseUrl::parse(url).unwrap_err(), expected, "{url}");
        }
        let url = DatabaseUrl::parse("postgres://u:canary@a/b").unwrap();
        assert!(!format!("{url:?} {url}").contains("canary"));
    }
}
