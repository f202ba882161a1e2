//! A process that a test started: signalled, waited for, and gone when the test ends, whatever happens.

use std::{
    net::{SocketAddr, TcpListener},
    process::{Child, Command, ExitStatus},
    sync::atomic::{AtomicU16, Ordering},
};

/// A running child. Dropping it kills it, and nothing else.
pub(crate) struct Process(Child);

/// What a process can be told without its consent or with it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Signal {
    Terminate,
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
    }
}

/// A loopback address that nobody listens on. Ports below the range from which the kernel draws for outgoing
/// connections, so that none of those can take it before the server does.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let offset = u16::try_from(std::process::id() % 10_000).expect("below 10,000");
    loop {
        let port = 12_000 + (offset + NEXT.fetch_add(1, Ordering::Relaxed)) % 18_000;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
