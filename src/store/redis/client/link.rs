//! One live connection to one server.
//!
//! Invariants: a link that is broken stays broken; it is noticed within [`HEARTBEAT`] + [`PATIENCE`] even if the server says
//! nothing (stopped, half-open); everything that was in flight then is answered at once, as unknown.
//!
//! All calls of a process share one link per server. It has one connection of its own, and one on each other runtime that calls
//! (`nearby.rs`); over each of them calls are pipelined, and answered in their order.

use std::{
    io,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, Pipeline, ProtocolVersion, RedisConnectionInfo, RedisError,
    ServerErrorKind, Value,
    aio::{MultiplexedConnection, PubSub},
};
use rustix::net::sockopt;
use tokio::{net::TcpStream, runtime::Handle};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

use super::{
    ears::Ears,
    failure::{ConnectError, Refusal},
    info::Info,
    nearby::Nearby,
    tls,
};
use crate::{
    config::{Address, RedisUrl, Transport},
    lifecycle::Lifecycle,
    secret::Secret,
};

/// How long a connection, its login included, may take.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_000);

/// How often a server is asked whether it is there.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// How long it may think about that. Together with [`HEARTBEAT`] less than 2 s.
const PATIENCE: Duration = Duration::from_millis(1_250);

/// Every how many heartbeats it is looked at again: settings change while a server runs, and one that may evict must not be used
/// for longer than a person takes to look at `/readyz`. `INFO` takes a server about 0.1 ms.
const LOOK_EVERY: u32 = 4;

/// Keys that people write to directly begin so.
const WATCHED: &str = "prefix_configs";

/// Calls that may wait for the socket.
const QUEUE: usize = 1_024;

/// How to log in, and where a connection lives.
#[derive(Clone)]
pub(super) struct Access {
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret<String>>,
    pub(super) database: u32,
    pub(super) tls: Option<TlsConnector>,
    pub(super) ears: Arc<Ears>,
    /// Connections live on this runtime, whoever calls.
    pub(super) runtime: Handle,
    pub(super) lifecycle: Lifecycle,
}

/// A connection that was greeted by the server.
pub(super) struct Link {
    address: Address,
    connection: MultiplexedConnection,
    /// More of them, each on a runtime that calls.
    nearby: Arc<Nearby>,
    hearing: Hearing,
    ears: Arc<Ears>,
    info: Info,
    is_watched: AtomicBool,
    fate: Arc<Fate>,
}

/// How messages come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hearing {
    /// Between replies (RESP3).
    Pushed,
    /// Over a connection of their own (RESP2).
    Apart,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Whether a link lives, and of what it died.
#[derive(Debug, Default)]
pub(super) struct Fate {
    broken: CancellationToken,
    cause: OnceLock<Arc<Refusal>>,
}

impl Fate {
    /// The first cause counts.
    fn end(&self, cause: Refusal) {
        let _first = self.cause.set(Arc::new(cause));
        self.broken.cancel();
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.broken.is_cancelled()
    }
}

/// What moves the bytes of a connection.
pub(super) type Driver = BoxFuture<'static, ()>;

impl Access {
    /// Access as the URL says. Connections live on this runtime.
    pub(super) fn new(
        url: &RedisUrl,
        ca_file: Option<&Path>,
        lifecycle: &Lifecycle,
    ) -> Result<Self, ConnectError> {
        Ok(Self {
            user: url.user.clone(),
            password: url.password.clone(),
            database: url.database,
            tls: match url.transport {
                Transport::Plain => None,
                Transport::Tls => Some(tls::connector(ca_file)?),
            },
            ears: Arc::default(),
            runtime: Handle::current(),
            lifecycle: lifecycle.clone(),
        })
    }

    /// Connects, logs in and looks at the server; whether it will do is up to the caller.
    pub(super) async fn open(&self, address: &Address) -> Result<Link, Refusal> {
        match tokio::time::timeout(CONNECT_TIMEOUT, self.open_unbounded(address)).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(Refusal::Silent { address: address.clone() }),
        }
    }

    async fn open_unbounded(&self, address: &Address) -> Result<Link, Refusal> {
        match self.greet(address, ProtocolVersion::RESP3).await {
            Err(refusal) if refusal.is_of_protocol() => self.greet(address, ProtocolVersion::RESP2).await,
            outcome => outcome,
        }
    }

    /// A connection that only hears messages, for servers without RESP3.
    pub(super) async fn listen(&self, address: &Address) -> Result<PubSub, Refusal> {
        let login = self.login(ProtocolVersion::RESP2);
        let connect = async {
            let connection = match self.reach(address).await? {
                Stream::Plain(stream) => PubSub::new(&login, stream).await,
                Stream::Tls(stream) => PubSub::new(&login, stream).await,
            };
            connection.map_err(|error| Refusal::of(address, &error))
        };
        let late = |_elapsed| Refusal::Silent { address: address.clone() };
        tokio::time::timeout(CONNECT_TIMEOUT, connect).await.map_err(late)?
    }

    async fn reach(&self, address: &Address) -> Result<Stream, Refusal> {
        let unreachable = |source| Refusal::Unreachable { address: address.clone(), source };
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(unreachable)?;
        watch_over(&stream).map_err(unreachable)?;
        let Some(tls) = &self.tls else { return Ok(Stream::Plain(stream)) };
        let name = address.host.clone().try_into().map_err(|error| unreachable(io::Error::other(error)))?;
        Ok(Stream::Tls(Box::new(tls.connect(name, stream).await.map_err(unreachable)?)))
    }

    fn login(&self, protocol: ProtocolVersion) -> RedisConnectionInfo {
        let mut login = RedisConnectionInfo::default()
            .set_db(self.database.into())
            .set_protocol(protocol)
            .set_lib_name("numgen", env!("CARGO_PKG_VERSION"));
        if let Some(user) = &self.user {
            login = login.set_username(user);
        }
        if let Some(password) = &self.password {
            login = login.set_password(password.reveal());
        }
        login
    }

    /// Logs in and looks at the server; the connection lives on its runtime from here on.
    async fn greet(&self, address: &Address, protocol: ProtocolVersion) -> Result<Link, Refusal> {
        let mut config = AsyncConnectionConfig::new();
        if protocol == ProtocolVersion::RESP3 {
            let ears = Arc::clone(&self.ears);
            config = config.set_push_sender(move |push| {
                ears.hear_push(push);
                Ok::<_, std::convert::Infallible>(())
            });
        }
        let (mut connection, driver) = self.log_in(address, protocol, config).await?;
        let fate = Arc::new(Fate::default());
        let moving = drive(driver, connection.clone(), address.clone(), &fate, &self.lifecycle);
        self.lifecycle.spawn_on(&self.runtime, moving);
        let info = look(&mut connection).await.map_err(|error| Refusal::of(address, &error))?;
        let nearby = Nearby::new(self.clone(), address.clone(), protocol, &info, &fate);
        let hearing = if protocol == ProtocolVersion::RESP3 { Hearing::Pushed } else { Hearing::Apart };
        let ears = Arc::clone(&self.ears);
        let is_watched = AtomicBool::new(false);
        Ok(Link { address: address.clone(), connection, nearby, hearing, ears, info, is_watched, fate })
    }

    /// A connection on which nothing was asked yet, and what moves its bytes.
    pub(super) async fn log_in(
        &self,
        address: &Address,
        protocol: ProtocolVersion,
        config: AsyncConnectionConfig,
    ) -> Result<(MultiplexedConnection, Driver), Refusal> {
        let login = self.login(protocol);
        let config = config.set_response_timeout(None).set_pipeline_buffer_size(QUEUE);
        let refused = |error: RedisError| Refusal::of(address, &error);
        Ok(match self.reach(address).await? {
            Stream::Plain(stream) => {
                let (connection, driver) =
                    MultiplexedConnection::new_with_config(&login, stream, config).await.map_err(refused)?;
                (connection, Box::pin(driver))
            }
            Stream::Tls(stream) => {
                let (connection, driver) =
                    MultiplexedConnection::new_with_config(&login, stream, config).await.map_err(refused)?;
                (connection, Box::pin(driver))
            }
        })
    }
}

/// Moves bytes until the connection ends, the server falls silent, or nobody wants the link any more.
pub(super) fn drive(
    driver: Driver,
    connection: MultiplexedConnection,
    address: Address,
    fate: &Arc<Fate>,
    lifecycle: &Lifecycle,
) -> impl Future<Output = ()> + Send + 'static {
    let (fate, lifecycle) = (Arc::clone(fate), lifecycle.clone());
    let pulse = pulse(connection, address.clone());
    async move {
        let cause = tokio::select! {
            () = driver => Refusal::Broken { address },
            cause = pulse => cause,
            () = fate.broken.cancelled() => Refusal::Broken { address },
            () = lifecycle.draining() => Refusal::Broken { address },
        };
        fate.end(cause);
    }
}

impl Link {
    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// What the server said of itself when it was greeted.
    pub(super) fn info(&self) -> &Info {
        &self.info
    }

    pub(super) fn is_broken(&self) -> bool {
        self.fate.broken.is_cancelled()
    }

    /// Resolves when the link is broken, with the cause.
    pub(super) async fn broken(&self) -> Arc<Refusal> {
        self.fate.broken.cancelled().await;
        let unknown = || Arc::new(Refusal::Broken { address: self.address.clone() });
        Arc::clone(self.fate.cause.get_or_init(unknown))
    }

    /// Gives the link up: the server is not what it was.
    pub(super) fn give_up(&self, cause: Refusal) {
        self.fate.end(cause);
    }

    /// Sends a command over the link's own connection and waits for its reply. An error that is no reply leaves open whether it was
    /// executed.
    pub(super) async fn send(&self, command: &Cmd) -> Result<Value, RedisError> {
        self.connection.clone().send_packed_command(command).await?.extract_error()
    }

    /// The connection on the runtime of the caller; its own where there is none.
    pub(super) fn nearest(&self) -> MultiplexedConnection {
        self.nearby.here().unwrap_or_else(|| self.connection.clone())
    }

    /// Sends commands one directly behind the other; replies may be errors.
    async fn send_all(&self, commands: &Pipeline) -> Result<Vec<Value>, RedisError> {
        self.connection.clone().send_packed_commands(commands, 0, commands.len()).await
    }

    /// Asks what the server can answer at once; waits no longer than a connection may take.
    pub(super) async fn send_soon(&self, command: &Cmd) -> Result<Value, Refusal> {
        self.soon(self.send(command)).await
    }

    /// The same for several commands, one directly behind the other; replies may be errors.
    pub(super) async fn send_all_soon(&self, commands: &Pipeline) -> Result<Vec<Value>, Refusal> {
        self.soon(self.send_all(commands)).await
    }

    async fn soon<T>(&self, reply: impl Future<Output = Result<T, RedisError>>) -> Result<T, Refusal> {
        match tokio::time::timeout(CONNECT_TIMEOUT, reply).await {
            Ok(reply) => reply.map_err(|error| Refusal::of(&self.address, &error)),
            Err(_elapsed) => Err(Refusal::Silent { address: self.address.clone() }),
        }
    }

    /// How messages come.
    pub(super) fn hearing(&self) -> Hearing {
        self.hearing
    }

    /// Who hears the messages of this link.
    pub(super) fn ears(&self) -> &Ears {
        &self.ears
    }

    /// Hears a channel from now on (RESP3).
    pub(super) async fn subscribe(&self, channel: &str) -> Result<(), RedisError> {
        self.connection.clone().subscribe(channel).await
    }

    /// Has the server report writes by others to watched keys from now on (RESP3). A server that does not allow it is asked all
    /// the more often.
    pub(super) async fn watch(&self) {
        if self.hearing != Hearing::Pushed {
            return;
        }
        let mut watch = redis::cmd("CLIENT");
        watch.arg("TRACKING").arg("ON").arg("BCAST").arg("PREFIX").arg(WATCHED);
        match self.send_soon(&watch).await {
            Ok(_) => {
                self.is_watched.store(true, Ordering::Release);
                // What was written before is not reported.
                self.ears.raise_alarm();
            }
            Err(refusal) => {
                tracing::info!(error = %refusal, "Redis does not report direct writes: looking for them")
            }
        }
    }

    /// Whether the server reports writes by others.
    pub(super) fn is_watched(&self) -> bool {
        self.is_watched.load(Ordering::Acquire) && !self.is_broken()
    }
}

/// Nobody can reach a link that was dropped: its task ends.
impl Drop for Link {
    fn drop(&mut self) {
        self.fate.broken.cancel();
    }
}

/// Asks the server again and again whether it is there and still fit; resolves when it is not. A server that is busy for
/// longer than [`PATIENCE`] counts as gone.
async fn pulse(mut connection: MultiplexedConnection, address: Address) -> Refusal {
    let ping = redis::cmd("PING");
    for beat in 1_u32.. {
        tokio::time::sleep(HEARTBEAT).await;
        let answer = async {
            if beat.is_multiple_of(LOOK_EVERY) {
                let info = look(&mut connection).await.map_err(|error| Refusal::of(&address, &error))?;
                return info.check(&address);
            }
            match connection.send_packed_command(&ping).await.and_then(Value::extract_error) {
                Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::BusyLoading) => {
                    Err(Refusal::Loading { address: address.clone() })
                }
                // Any other reply is a sign of life.
                Err(error) if error.is_io_error() => Err(Refusal::Broken { address: address.clone() }),
                _ => Ok(()),
            }
        };
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(())) => {}
            Ok(Err(cause)) => return cause,
            Err(_elapsed) => return Refusal::Silent { address },
        }
    }
    Refusal::Broken { address }
}

pub(super) async fn look(connection: &mut MultiplexedConnection) -> Result<Info, RedisError> {
    let reply = connection.send_packed_command(&redis::cmd("INFO")).await?.extract_error()?;
    Ok(Info::parse(&redis::from_redis_value::<String>(reply)?))
}

/// The kernel notices a dead peer about when the heartbeat does; its own defaults are hours.
fn watch_over(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(1))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(1))?;
    sockopt::set_tcp_keepcnt(stream, 1)?;
    const UNANSWERED_MS: u32 = 2_000;
    Ok(sockopt::set_tcp_user_timeout(stream, UNANSWERED_MS)?)
}
