//! A network that fails: a TCP proxy in front of one loopback port, which a test can make worse at any moment.
//!
//! Bytes never change and never overtake each other; TCP does not allow that either. What a network can do is to hold them, to
//! cut a connection without a word or with one, and to keep one side in the belief that all is well.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

use super::Random;

/// What is wrong with the network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    None,
    /// Nobody listens: connections are cut, new ones refused.
    Refuse,
    /// A partition: connections stay, new ones are made, and nothing arrives. What was sent meanwhile arrives when it is over.
    BlackHole,
    /// What is asked arrives and is done; the answers never come. Connections that lost one are cut when it is over.
    DropReplies,
    /// What is asked arrives and is done; instead of the answer, the end of the connection comes.
    CutReplies,
    /// Each way takes longer by so much.
    Latency(Duration),
    /// Each packet is lost with this probability and sent again by TCP: 200 ms later, then after twice that.
    Loss(f64),
    /// The server has forgotten the connections of before, and the client is not told. New ones work.
    HalfOpen,
}

/// The way to a port.
pub(crate) struct Proxy {
    address: SocketAddr,
    /// The port that new connections are led to.
    target: Arc<AtomicU16>,
    fault: watch::Sender<Fault>,
    /// Its runtime, until it is dropped.
    thread: Option<thread::JoinHandle<()>>,
    forwarded: Arc<AtomicU64>,
}

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    There,
    Back,
}

/// Why a connection ends.
enum End {
    /// One side closed it, or the fault did.
    Cut,
    /// Nobody is told.
    Forgotten,
}

impl Proxy {
    /// A way to the loopback port `port` that is fine until it is told otherwise.
    #[track_caller]
    pub(crate) fn to(port: u16) -> Self {
        let target = Arc::new(AtomicU16::new(port));
        let address = super::process::free_address();
        let (fault, watched) = watch::channel(Fault::None);
        let forwarded = Arc::new(AtomicU64::new(0));
        let (counter, led_to) = (Arc::clone(&forwarded), Arc::clone(&target));
        let thread = thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(serve(address, led_to, watched, counter));
        });
        let proxy = Self { address, target, fault, thread: Some(thread), forwarded };
        super::Stopwatch::wait_until(Duration::from_secs(5), "the proxy listens", || {
            std::net::TcpStream::connect(address).is_ok()
        });
        proxy
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on it leads to another port; connections that there are stay, where a fault does not cut them.
    pub(crate) fn lead_to(&self, port: u16) {
        self.target.store(port, Ordering::Relaxed);
    }

    /// The way to a Redis as the service takes it.
    pub(crate) fn redis_url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// From now on the network behaves like this. Connections that a fault broke stay broken.
    pub(crate) fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// How many bytes have arrived at either end so far.
    pub(crate) fn forwarded(&self) -> u64 {
        self.forwarded.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The runtime ends with the sender of its faults.
        self.fault = watch::channel(Fault::None).0;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Accepts until the proxy is dropped; then every connection ends with this future.
async fn serve(
    address: SocketAddr,
    target: Arc<AtomicU16>,
    mut fault: watch::Receiver<Fault>,
    forwarded: Arc<AtomicU64>,
) {
    let mut connections = JoinSet::new();
    // The same losses in the same order each time.
    let mut random = Random::of(0x9e37_79b9_7f4a_7c15);
    loop {
        if *fault.borrow_and_update() == Fault::Refuse {
            if fault.changed().await.is_err() {
                return;
            }
            continue;
        }
        // Only a port without a listener refuses.
        let Ok(listener) = TcpListener::bind(address).await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        while *fault.borrow_and_update() != Fault::Refuse {
            tokio::select! {
                changed = fault.changed() => if changed.is_err() { return },
                accepted = listener.accept() => if let Ok((client, _)) = accepted {
                    let target = SocketAddr::from(([127, 0, 0, 1], target.load(Ordering::Relaxed)));
                    let (fault, forwarded, random) = (fault.clone(), Arc::clone(&forwarded), random.split());
                    connections.spawn(connect(client, target, fault, forwarded, random));
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

/// One connection, for as long as the fault lets it live.
async fn connect(
    client: TcpStream,
    target: SocketAddr,
    mut fault: watch::Receiver<Fault>,
    forwarded: Arc<AtomicU64>,
    mut random: Random,
) {
    // Where packets get lost, so do those that make connections.
    if wait_for_passage(&mut fault, &mut random).await.is_err() {
        return;
    }
    fault.mark_unchanged();
    let Ok(server) = TcpStream::connect(target).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut there = Pump {
        way: Way::There,
        from: from_client,
        to: to_server,
        fault: fault.clone(),
        random: random.split(),
    };
    let mut back = Pump { way: Way::Back, from: from_server, to: to_client, fault: fault.clone(), random };
    let end = tokio::select! {
        end = there.run(&forwarded) => end,
        end = back.run(&forwarded) => end,
    };
    if matches!(end, End::Forgotten) {
        let Pump { from: from_client, .. } = there;
        let Pump { to: to_client, .. } = back;
        // The server's side is closed; the client's stays until the client itself gives up, or for good.
        let _ = to_client;
        swallow(from_client, fault).await;
    }
}

/// Reads what nobody will ever get.
async fn swallow(mut from: OwnedReadHalf, mut fault: watch::Receiver<Fault>) {
    let mut bytes = [0; 4096];
    loop {
        tokio::select! {
            read = from.read(&mut bytes) => if !matches!(read, Ok(1..)) { return },
            changed = fault.changed() => if changed.is_err() || *fault.borrow() == Fault::Refuse { return },
        }
    }
}

/// One direction of a connection.
struct Pump {
    way: Way,
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    fault: watch::Receiver<Fault>,
    random: Random,
}

impl Pump {
    async fn run(&mut self, forwarded: &AtomicU64) -> End {
        self.forward(forwarded).await.unwrap_or_else(|end| end)
    }

    async fn forward(&mut self, forwarded: &AtomicU64) -> Result<End, End> {
        let mut bytes = vec![0; 64 * 1024];
        let mut lost_a_reply = false;
        loop {
            let read = tokio::select! {
                biased;
                changed = self.fault.changed() => {
                    changed.map_err(|_| End::Cut)?;
                    let now = *self.fault.borrow_and_update();
                    if now == Fault::HalfOpen {
                        return Err(End::Forgotten);
                    }
                    if now == Fault::Refuse || (lost_a_reply && now != Fault::DropReplies) {
                        return Err(End::Cut);
                    }
                    continue;
                }
                read = self.from.read(&mut bytes) => read.map_err(|_| End::Cut)?,
            };
            if read == 0 {
                return Ok(End::Cut);
            }
            let now = *self.fault.borrow();
            if self.way == Way::Back && now == Fault::DropReplies {
                lost_a_reply = true;
                continue;
            }
            if self.way == Way::Back && now == Fault::CutReplies {
                return Err(End::Cut);
            }
            wait_for_passage(&mut self.fault, &mut self.random).await?;
            self.to.write_all(&bytes[..read]).await.map_err(|_: io::Error| End::Cut)?;
            forwarded.fetch_add(read as u64, Ordering::Relaxed);
        }
    }
}

/// Until a packet gets through; an error where its connection does not outlive the wait.
async fn wait_for_passage(fault: &mut watch::Receiver<Fault>, random: &mut Random) -> Result<(), End> {
    let mut pause = Duration::from_millis(200);
    loop {
        let now = *fault.borrow();
        let wait = match now {
            Fault::BlackHole => Duration::MAX,
            Fault::Latency(latency) => latency,
            Fault::Loss(share) if random.share() < share => pause,
            Fault::None | Fault::Loss(_) | Fault::HalfOpen | Fault::DropReplies | Fault::CutReplies => {
                return Ok(());
            }
            Fault::Refuse => return Err(End::Cut),
        };
        tokio::select! {
            () = tokio::time::sleep(wait.min(Duration::from_secs(86_400))) => {
                if matches!(now, Fault::Latency(_)) {
                    return Ok(());
                }
                pause *= 2;
            }
            changed = fault.wait_for(|fault| *fault != now) => {
                match changed.map(|fault| *fault) {
                    Err(_) | Ok(Fault::Refuse) => return Err(End::Cut),
                    Ok(Fault::HalfOpen) => return Err(End::Forgotten),
                    Ok(_) => {}
                }
            }
        }
    }
}
