//! Lua scripts and their arguments.

use std::{fmt, sync::OnceLock};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use redis::{Cmd, RedisWrite, ToRedisArgs};

/// A Lua script with the name under which its calls are counted. Sent by digest; the source follows once where the server
/// does not know it (after a restart, a failover, `SCRIPT FLUSH`).
#[derive(Debug)]
pub struct Script {
    /// The operation, in errors and metrics.
    pub name: &'static str,
    /// Its source.
    pub source: &'static str,
    digest: OnceLock<String>,
}

impl Script {
    /// A script; fit for a `static`.
    pub const fn new(name: &'static str, source: &'static str) -> Self {
        Self { name, source, digest: OnceLock::new() }
    }

    /// `EVALSHA`.
    pub(super) fn by_digest(&self, keys: &[String], args: &[Arg<'_>]) -> Cmd {
        command("EVALSHA", self.digest(), keys, args)
    }

    /// `EVAL`, which also makes the server remember the source.
    pub(super) fn by_source(&self, keys: &[String], args: &[Arg<'_>]) -> Cmd {
        command("EVAL", self.source, keys, args)
    }

    /// SHA-1 of the source in hexadecimal: the name that Redis gives it.
    fn digest(&self) -> &str {
        self.digest.get_or_init(|| {
            let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, self.source.as_bytes());
            digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
        })
    }
}

fn command(verb: &str, script: &str, keys: &[String], args: &[Arg<'_>]) -> Cmd {
    let bytes = keys.iter().map(String::len).sum::<usize>() + args.iter().map(Arg::room).sum::<usize>();
    let mut command = Cmd::with_capacity(3 + keys.len() + args.len(), bytes + script.len() + 16);
    command.arg(verb).arg(script).arg(keys.len());
    for key in keys {
        command.arg(key);
    }
    for arg in args {
        command.arg(arg);
    }
    command
}

/// One argument of a script (`ARGV`). Redis sees text; `Debug` shows none, since it may be a rule.
#[derive(Clone, Copy)]
pub enum Arg<'a> {
    /// Text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// A whole number, in decimal. Above 2^53 Lua has to treat it as text.
    Unsigned(u64),
    /// A whole number, in decimal.
    Signed(i64),
}

impl Arg<'_> {
    /// How many bytes it takes at most.
    fn room(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::Unsigned(_) | Self::Signed(_) => 20,
        }
    }
}

impl ToRedisArgs for Arg<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        match self {
            Self::Text(text) => out.write_arg(text.as_bytes()),
            Self::Bytes(bytes) => out.write_arg(bytes),
            Self::Unsigned(number) => number.write_redis_args(out),
            Self::Signed(number) => number.write_redis_args(out),
        }
    }
}

impl fmt::Debug for Arg<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Arg(..)")
    }
}

impl<'a> From<&'a str> for Arg<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Arg<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Arg<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<u64> for Arg<'_> {
    fn from(number: u64) -> Self {
        Self::Unsigned(number)
    }
}

impl From<u32> for Arg<'_> {
    fn from(number: u32) -> Self {
        Self::Unsigned(number.into())
    }
}

impl From<i64> for Arg<'_> {
    fn from(number: i64) -> Self {
        Self::Signed(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_called_by_the_name_that_redis_gives_it() {
        static SCRIPT: Script = Script::new("one", "return 1");
        let packed = |command: Cmd| String::from_utf8(command.get_packed_command()).unwrap();
        // `redis-cli SCRIPT LOAD "return 1"`
        assert_eq!(
            packed(SCRIPT.by_digest(&["k".to_owned()], &[7_u64.into(), Arg::Signed(-1), "a".into()])),
            "*7\r\n$7\r\nEVALSHA\r\n$40\r\ne0e1f9fabfc9d4800c877a703b823ac0578ff8db\r\n$1\r\n1\r\n$1\r\nk\r\n$1\r\n7\r\n$2\r\n-1\r\n$1\r\na\r\n"
        );
        assert!(
            packed(SCRIPT.by_source(&[], &[])).starts_with("*3\r\n$4\r\nEVAL\r\n$8\r\nreturn 1\r\n$1\r\n0")
        );
    }
}
