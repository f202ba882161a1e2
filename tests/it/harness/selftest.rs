//! Tests of the harness: a fault that does not happen proves nothing.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

use numgen::clock::UnixMillis;

use super::{Data, Fault, Hands, Proxy, Redis, Stopwatch};

const NOON: UnixMillis = UnixMillis(1_795_348_800_000);

/// One connection to a Redis, spoken to by hand.
struct Line(TcpStream);

impl Line {
    fn open(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    fn ask(&mut self, command: &str, patience: Duration) -> std::io::Result<String> {
        self.0.set_read_timeout(Some(patience))?;
        self.0.write_all(format!("{command}\r\n").as_bytes())?;
        self.hear()
    }

    fn hear(&mut self) -> std::io::Result<String> {
        let mut answer = [0; 256];
        let read = loop {
            match self.0.read(&mut answer) {
                // Whoever was stopped, or frozen with the machine, is interrupted where there is a timeout (signal(7)).
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(String::from_utf8_lossy(&answer[..read]).trim_end().to_owned())
    }
}

const SOON: Duration = Duration::from_millis(300);
const LATER: Duration = Duration::from_secs(5);

/// Neither an answer nor an end.
#[track_caller]
fn assert_silent(answer: std::io::Result<String>) {
    let error = answer.expect_err("silence");
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
}

/// The end of the connection.
#[track_caller]
fn assert_cut(answer: std::io::Result<String>) {
    let error = answer.expect_err("the end");
    let ends = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    assert!(ends.contains(&error.kind()), "{error}");
}

#[test]
fn a_redis_keeps_loses_or_recalls_its_data() {
    let mut redis = Redis::start();
    assert_eq!(redis.cli(&["SET", "a", "1"]), "OK");
    let dump = redis.dump();
    let replid = redis.info("replication", "master_replid");
    assert_eq!(redis.cli(&["INCR", "a"]), "2");

    redis.kill();
    redis.start_again(Data::Kept);
    assert_eq!(redis.cli(&["GET", "a"]), "2", "acknowledged is kept");
    assert_ne!(redis.info("replication", "master_replid"), replid, "and it knows that it was restarted");

    redis.kill();
    redis.start_again(Data::Dump(dump));
    assert_eq!(redis.cli(&["GET", "a"]), "1", "as it was");
    assert_eq!(redis.info("persistence", "aof_enabled"), "1");
    redis.cli(&["INCRBY", "a", "41"]);
    redis.kill();
    redis.start_again(Data::Kept);
    assert_eq!(redis.cli(&["GET", "a"]), "42", "the log was on again");

    redis.kill();
    redis.start_again(Data::Empty);
    assert_eq!(redis.cli(&["GET", "a"]), "");
}

#[test]
fn a_paused_redis_is_silent_and_goes_on() {
    let redis = Redis::start();
    let mut line = Line::open(redis.port()).expect("a connection");
    redis.pause();
    assert_silent(line.ask("PING", SOON));
    redis.resume();
    line.0.set_read_timeout(Some(LATER)).expect("a timeout");
    assert_eq!(line.hear().expect("an answer"), "+PONG");
}

#[test]
fn the_clock_of_a_redis_obeys() {
    let redis = Redis::start_with_clock(Hands::Standing(NOON));
    assert_eq!((redis.time_ms(), redis.time_ms()), (NOON.0, NOON.0));
    redis.cli(&["SET", "a", "1", "PX", "1000"]);
    redis.set_clock(Hands::Standing(NOON.plus(Duration::from_millis(999))));
    assert_eq!((redis.time_ms(), redis.cli(&["GET", "a"])), (NOON.0 + 999, "1".to_owned()));
    redis.set_clock(Hands::Standing(NOON.plus(Duration::from_millis(1_001))));
    assert_eq!(redis.cli(&["GET", "a"]), "", "keys expire by it");
    redis.set_clock(Hands::Off(-3_600_500));
    let (before, after) = (redis.time_ms(), redis.time_ms());
    assert!(before < after + 1 && before > NOON.0 - 365 * 86_400_000, "{before} {after}");
    let an_hour_on = redis.time_ms();
    redis.set_clock(Hands::Off(0));
    let gone = redis.time_ms() - an_hour_on;
    assert!((3_600_500..3_610_000).contains(&gone), "{gone}");
}

#[test]
fn a_refused_port_refuses() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    let mut line = Line::open(proxy.port()).expect("a connection");
    assert_eq!(line.ask("PING", LATER).expect("an answer"), "+PONG");
    proxy.set(Fault::Refuse);
    assert_cut(line.ask("PING", LATER).and_then(|_| line.hear()));
    Stopwatch::wait_until(LATER, "refused", || {
        Line::open(proxy.port()).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    proxy.set(Fault::None);
    Stopwatch::wait_until(LATER, "open again", || {
        Line::open(proxy.port())
            .and_then(|mut line| line.ask("PING", LATER))
            .is_ok_and(|answer| answer == "+PONG")
    });
}

#[test]
fn a_black_hole_holds_what_was_sent() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    let mut line = Line::open(proxy.port()).expect("a connection");
    assert_eq!(line.ask("INCR a", LATER).expect("an answer"), ":1");
    proxy.set(Fault::BlackHole);
    assert_silent(line.ask("INCR a", SOON));
    let mut other = Line::open(proxy.port()).expect("the handshake is the kernel's");
    assert_silent(other.ask("INCR a", SOON));
    assert_eq!(redis.cli(&["GET", "a"]), "1");
    proxy.set(Fault::None);
    line.0.set_read_timeout(Some(LATER)).expect("a timeout");
    other.0.set_read_timeout(Some(LATER)).expect("a timeout");
    let mut late = [line.hear().expect("an answer"), other.hear().expect("an answer")];
    late.sort();
    assert_eq!(late, [":2", ":3"], "late, not lost");
}

#[test]
fn a_lost_reply_leaves_the_deed_done() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    let mut line = Line::open(proxy.port()).expect("a connection");
    assert_eq!(line.ask("INCR a", LATER).expect("an answer"), ":1");
    proxy.set(Fault::DropReplies);
    assert_silent(line.ask("INCR a", SOON));
    assert_eq!(redis.cli(&["GET", "a"]), "2", "done");
    proxy.set(Fault::None);
    assert_cut(line.ask("INCR a", LATER));

    let mut line = Line::open(proxy.port()).expect("a connection");
    let done: u64 = line.ask("INCR a", LATER).expect("an answer")[1..].parse().expect("a number");
    proxy.set(Fault::CutReplies);
    assert_cut(line.ask("INCR a", LATER));
    assert_eq!(redis.cli(&["GET", "a"]), (done + 1).to_string(), "done");
}

#[test]
fn a_half_open_connection_is_silent_for_ever() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    let mut line = Line::open(proxy.port()).expect("a connection");
    assert_eq!(line.ask("INCR a", LATER).expect("an answer"), ":1");
    proxy.set(Fault::HalfOpen);
    assert_silent(line.ask("INCR a", SOON));
    let mut other = Line::open(proxy.port()).expect("a connection");
    assert_eq!(other.ask("INCR a", LATER).expect("an answer"), ":2", "new ones work");
    proxy.set(Fault::None);
    assert_silent(line.ask("INCR a", SOON));
    assert_eq!(other.ask("INCR a", LATER).expect("an answer"), ":3");
}

#[test]
fn slow_and_lossy_lines_deliver_in_the_end() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    proxy.set(Fault::Latency(Duration::from_millis(40)));
    let mut line = Line::open(proxy.port()).expect("a connection");
    line.ask("PING", LATER).expect("an answer");
    let watch = Stopwatch::start();
    assert_eq!(line.ask("INCR a", LATER).expect("an answer"), ":1");
    let took = watch.elapsed();
    assert!((80..400).contains(&took.as_millis()), "there and back: {took:?}");

    proxy.set(Fault::Loss(0.5));
    let watch = Stopwatch::start();
    let answers: Vec<String> =
        (0..6).map(|_| line.ask("INCR a", Duration::from_secs(30)).expect("an answer")).collect();
    assert_eq!(answers, [":2", ":3", ":4", ":5", ":6", ":7"]);
    assert!(watch.elapsed() > Duration::from_millis(400), "some were lost: {:?}", watch.elapsed());
    assert!(proxy.forwarded() > 7 * 8);
}

#[test]
fn a_limit_that_is_passed_while_the_machine_is_awake_fails() {
    let watch = Stopwatch::start();
    let passed = std::panic::catch_unwind(|| {
        Stopwatch::wait_until(Duration::from_millis(50), "nothing", || false);
    });
    assert!(passed.is_err());
    assert!(watch.elapsed() >= Duration::from_millis(50) && watch.awake() <= watch.elapsed());
}
