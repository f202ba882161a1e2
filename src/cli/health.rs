//! `numgen health`: does the service of this configuration want traffic? For containers, which have no other program to ask with.
//!
//! It asks the admin listener, so it needs no token, and says the same as `/readyz`.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use super::{CliError, Terminal};
use crate::{
    client::{Client, Limits},
    config::{Config, Flags, Source, Values},
};

/// It is on the same machine: whoever takes longer is not healthy.
const LIMITS: Limits = Limits { deadline: Duration::from_secs(3), body_bytes: 64 * 1024 };

pub(super) async fn run(
    flags: &Flags,
    source: &impl Source,
    terminal: &mut Terminal<'_>,
) -> Result<(), CliError> {
    let config = Config::read(&Values::gather(flags, source)?)?;
    let url = format!("http://{}/readyz", reachable(config.listen.admin));
    let unanswered = |source| CliError::Client { url: url.clone(), source };
    let client = Client::for_url(&url).map_err(unanswered)?;
    let answer = client.get(&url, LIMITS).await.map_err(unanswered)?;
    let said = String::from_utf8_lossy(answer.body());
    if !answer.status().is_success() {
        return Err(CliError::Unready(said.trim_end().to_owned()));
    }
    writeln!(terminal.out, "{}", said.trim_end())?;
    Ok(())
}

/// Where somebody who listens on `address` can be reached from here: "everywhere" is no destination.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everywhere_is_reached_at_home() {
        for (listens, asked) in
            [("0.0.0.0:9464", "127.0.0.1:9464"), ("[::]:9464", "[::1]:9464"), ("10.1.2.3:80", "10.1.2.3:80")]
        {
            assert_eq!(reachable(listens.parse().unwrap()).to_string(), asked);
        }
    }
}
