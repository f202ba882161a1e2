//! A small blocking HTTP/1.1 client that does exactly what it is told, so that tests can also send what no decent client would.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

/// How long an answer may take before a test fails; far above any timeout of the service that is waited for on purpose.
const PATIENCE: Duration = Duration::from_secs(60);

/// One connection, kept alive between requests.
pub(crate) struct Connection {
    reader: BufReader<TcpStream>,
    host: String,
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { reader: BufReader::new(stream), host: address.to_string() })
    }

    /// Sends the head and the body of one request and reads its answer.
    pub(crate) fn send(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> io::Result<Response> {
        let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n", self.host);
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        if let Some(body) = body {
            text += &format!("Content-Length: {}\r\n", body.len());
        }
        text += "\r\n";
        text += body.unwrap_or_default();
        self.write(text.as_bytes())?;
        self.read(method)
    }

    /// Sends bytes as they are.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// Reads one answer; `method` tells whether it has a body.
    pub(crate) fn read(&mut self, method: &str) -> io::Result<Response> {
        let status_line = self.line()?;
        let status = status_line
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| io::Error::other(format!("not a status line: {status_line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut response = Response { status, headers, body: Vec::new() };
        if method == "HEAD" || status == 204 || status == 304 {
            return Ok(response);
        }
        response.body = if response.header("transfer-encoding").is_some() {
            self.chunks()?
        } else {
            let length =
                response.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            let mut body = vec![0; length];
            self.reader.read_exact(&mut body)?;
            body
        };
        Ok(response)
    }

    /// Whether the other side closes within `patience` without sending anything more.
    pub(crate) fn is_closed_within(&mut self, patience: Duration) -> bool {
        self.reader.get_ref().set_read_timeout(Some(patience)).expect("a timeout");
        let closed = match self.reader.read(&mut [0; 1]) {
            Ok(read) => read == 0,
            Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
        };
        self.reader.get_ref().set_read_timeout(Some(PATIENCE)).expect("a timeout");
        closed
    }

    /// Reads until the other side has closed, and counts the bytes.
    pub(crate) fn drain(&mut self) -> usize {
        let (mut all, mut buffer) = (0, vec![0; 64 * 1024]);
        loop {
            match self.reader.read(&mut buffer) {
                Ok(0) | Err(_) => return all,
                Ok(read) => all += read,
            }
        }
    }

    /// Whether an answer begins to arrive within `patience`.
    pub(crate) fn has_answer_within(&mut self, patience: Duration) -> bool {
        self.reader.get_ref().set_read_timeout(Some(patience)).expect("a timeout");
        let arrived = self.reader.fill_buf().is_ok_and(|bytes| !bytes.is_empty());
        self.reader.get_ref().set_read_timeout(Some(PATIENCE)).expect("a timeout");
        arrived
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let length = usize::from_str_radix(&line, 16).map_err(io::Error::other)?;
            let mut chunk = vec![0; length + 2];
            self.reader.read_exact(&mut chunk)?;
            body.extend_from_slice(&chunk[..length]);
            if length == 0 {
                return Ok(body);
            }
        }
    }
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; a body that is none fails the test with the body in the message.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Fails the test unless the status is `status`; the body says why.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// Fails the test unless this is a complete problem document with this status and code.
    #[track_caller]
    pub(crate) fn expect_problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.text());
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        for field in ["type", "title", "detail", "instance", "request_id"] {
            assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{field} in {problem}");
        }
        assert!(!problem["instance"].as_str().unwrap_or_default().contains('?'), "{problem}");
        problem
    }

    /// The number, or the numbers, of an answer that issued.
    #[track_caller]
    pub(crate) fn numbers(&self) -> Vec<String> {
        let json = self.json();
        match (&json["number"], &json["numbers"]) {
            (Value::String(number), Value::Null) => vec![number.clone()],
            (Value::Null, Value::Array(numbers)) => {
                numbers.iter().map(|number| number.as_str().expect("a text").to_owned()).collect()
            }
            _ => panic!("no numbers in {json}"),
        }
    }
}
