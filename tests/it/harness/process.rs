//! A process that a test started: signalled, waited for, and gone when the test ends, whatever happens.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    ops::Range,
    process::{Child, Command, ExitStatus},
    sync::{Mutex, PoisonError},
};

use super::faketime;

/// A running child. Dropping it kills it, and nothing else.
pub(crate) struct Process(Child);

/// What a process can be told without its consent or with it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Signal {
    Terminate,
    /// Asks to read the configuration again.
    HangUp,
    /// Ends PostgreSQL in an orderly way, without waiting for its clients.
    Interrupt,
    /// Ends PostgreSQL with all its children at once.
    Quit,
    /// Freezes it where it stands, as a suspended virtual machine or a long garbage collection would.
    Stop,
    Continue,
}

impl Process {
    #[track_caller]
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let program = command.get_program().to_string_lossy().into_owned();
        let hint = "tests/stages/tools.sh system installs what the tests need";
        Self(command.spawn().unwrap_or_else(|error| panic!("{program}: {error}; {hint}")))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Without unsafe code, signals other than KILL need the shell's `kill`.
    pub(crate) fn signal(&self, signal: Signal) {
        let name = match signal {
            Signal::Terminate => "TERM",
            Signal::HangUp => "HUP",
            Signal::Interrupt => "INT",
            Signal::Quit => "QUIT",
            Signal::Stop => "STOP",
            Signal::Continue => "CONT",
        };
        let status = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.id())).status();
        assert!(status.expect("a shell").success(), "no process {} any more", self.id());
    }

    /// Ends it as a power cut would; a stopped process too.
    pub(crate) fn kill(&mut self) {
        self.0.kill().expect("its own child");
        self.0.wait().expect("its own child");
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("its own child")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
        for trace in faketime::traces(self.id()) {
            // Nearly every process ran without that library.
            let _absent = fs::remove_file(trace);
        }
    }
}

/// A loopback address that nobody listens on, and that no other run of the tests will take. Ports below the range from which the
/// kernel draws for outgoing connections, so that none of those can take it before the server does.
pub(crate) fn free_address() -> SocketAddr {
    static PORTS: Mutex<Ports> = Mutex::new(Ports { guards: Vec::new(), rest: 0..0 });
    let mut ports = PORTS.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let Some(port) = ports.rest.next() else {
            ports.claim_block();
            continue;
        };
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// Ports come in blocks. Whoever listens on the first port of a block at [`Ports::GUARD`] has the block.
struct Ports {
    guards: Vec<TcpListener>,
    rest: Range<u16>,
}

impl Ports {
    const FIRST: u16 = 12_000;
    const BLOCK: u16 = 100;
    const BLOCKS: u16 = 180;
    /// A loopback address on which no server of a test listens.
    const GUARD: [u8; 4] = [127, 78, 85, 77];

    fn claim_block(&mut self) {
        let begin = u16::try_from(std::process::id() % u32::from(Self::BLOCKS)).expect("below 180");
        let blocks = (0..Self::BLOCKS).map(|offset| (begin + offset) % Self::BLOCKS);
        let claimed = blocks.map(|block| Self::FIRST + Self::BLOCK * block).find_map(|first| {
            let guard = TcpListener::bind(SocketAddr::from((Self::GUARD, first))).ok()?;
            Some((guard, first))
        });
        let (guard, first) = claimed.expect("a block of ports that no other run has");
        self.guards.push(guard);
        self.rest = first..first + Self::BLOCK;
    }
}
