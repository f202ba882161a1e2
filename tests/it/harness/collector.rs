//! A collector of traces (OTLP over HTTP) that keeps what it is sent, for a test to look at.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use prost::Message;

/// A collector, until the end of the test.
pub(crate) struct Collector {
    address: SocketAddr,
    posts: Arc<Mutex<Vec<Post>>>,
}

/// One request that it was sent.
#[derive(Clone)]
pub(crate) struct Post {
    /// Request line and header fields, in lower case.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// Whether a collector answers.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Manners {
    Polite,
    /// It reads, and says nothing.
    Silent,
}

impl Collector {
    pub(crate) fn start() -> Self {
        Self::with(Manners::Polite)
    }

    pub(crate) fn with(manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let posts: Arc<Mutex<Vec<Post>>> = Arc::default();
        let kept = Arc::clone(&posts);
        thread::spawn(move || {
            // Connections that wait for an answer for ever.
            let mut open = Vec::new();
            for stream in listener.incoming().flatten() {
                let received = receive(&stream);
                if manners == Manners::Silent {
                    open.push(stream);
                } else if let Ok(post) = received {
                    kept.lock().expect("no panic").push(post);
                    let _gone = answer(&stream);
                }
            }
        });
        Self { address, posts }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn posts(&self) -> Vec<Post> {
        self.posts.lock().expect("no panic").clone()
    }

    /// Every span that has arrived.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let resources = self.posts().into_iter().flat_map(|post| post.request().resource_spans);
        resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
    }
}

impl Post {
    pub(crate) fn request(&self) -> ExportTraceServiceRequest {
        ExportTraceServiceRequest::decode(self.body.as_slice()).expect("protobuf of spans")
    }
}

fn receive(stream: &TcpStream) -> io::Result<Post> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    loop {
        let begin = head.len();
        if reader.read_line(&mut head)? == 0 || head[begin..].trim().is_empty() {
            break;
        }
    }
    let head = head.to_lowercase();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    Ok(Post { head, body })
}

fn answer(mut stream: &TcpStream) -> io::Result<()> {
    // An empty ExportTraceServiceResponse: everything was taken.
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n")
}

/// The value of an attribute, as text.
pub(crate) fn attribute(attributes: &[KeyValue], name: &str) -> Option<String> {
    let attribute = attributes.iter().find(|attribute| attribute.key == name)?;
    Some(match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other @ (Value::BoolValue(_)
        | Value::DoubleValue(_)
        | Value::ArrayValue(_)
        | Value::KvlistValue(_)
        | Value::BytesValue(_)
        | Value::StringValueStrindex(_)) => format!("{other:?}"),
    })
}
