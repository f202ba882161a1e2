//! Keys from a JWKS URL, over real HTTP: fetched at the start, rotated while the service runs, away for a while.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use numgen::clock::{Clock, SystemClock};
use serde_json::{Value, json};

use crate::harness::{Caller, Site, Stopwatch};

/// An issuer: a key pair under a key ID.
struct Issuer {
    kid: &'static str,
    keys: Ed25519KeyPair,
}

impl Issuer {
    fn new(kid: &'static str) -> Self {
        Self { kid, keys: Ed25519KeyPair::generate().expect("a key") }
    }

    fn jwk(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.keys.public_key());
        json!({ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": self.kid, "x": x })
    }

    fn token(&self) -> String {
        let expires = SystemClock::new().now().0 / 1_000 + 600;
        let claims = json!({ "sub": "erp", "scope": "prefixes:read", "exp": expires });
        let header = Header { kid: Some(self.kid.to_owned()), ..Header::new(Algorithm::EdDSA) };
        let pkcs8 = self.keys.to_pkcs8v1().expect("a document");
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ed_der(pkcs8.as_ref())).expect("signed")
    }
}

/// A host that answers every request with the present key set; without one it hangs up.
struct KeyHost {
    address: SocketAddr,
    keys: Arc<Mutex<Option<Value>>>,
}

impl KeyHost {
    fn start(keys: Option<Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let host = Self { address: listener.local_addr().expect("bound"), keys: Arc::new(Mutex::new(keys)) };
        let keys = Arc::clone(&host.keys);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let head =
                    BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
                head.for_each(drop);
                let Some(keys) = keys.lock().expect("no panic").clone() else { continue };
                let body = json!({ "keys": keys }).to_string();
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
                // A service that has gone away needs no answer.
                let _gone = (&stream).write_all(answer.as_bytes());
            }
        });
        host
    }

    fn serve(&self, keys: Value) {
        *self.keys.lock().expect("no panic") = Some(keys);
    }

    fn site(&self) -> Site {
        Site::new().with("NUMGEN_JWT_JWKS_URL", &format!("http://{}/keys", self.address))
    }
}

fn status(caller: &mut Caller) -> u16 {
    caller.get("/prefix-configs").status
}

#[test]
fn keys_rotate_without_a_restart() {
    let (old, new) = (Issuer::new("2026-10"), Issuer::new("2026-11"));
    let host = KeyHost::start(Some(json!([old.jwk()])));
    let server = host.site().start();
    let mut by_old = Caller::new(server.listen, Some(old.token()));
    let mut by_new = Caller::new(server.listen, Some(new.token()));
    Stopwatch::wait_until(Duration::from_secs(10), "the first set is fetched", || status(&mut by_old) == 200);
    assert_eq!(status(&mut by_new), 401, "nobody knows this key yet");

    host.serve(json!([new.jwk()]));
    // An unknown key asks for a new set, at most once in ten seconds.
    Stopwatch::wait_until(Duration::from_secs(20), "the new set is fetched", || status(&mut by_new) == 200);
    assert_eq!(status(&mut by_old), 401, "the old key was withdrawn");
    assert_eq!(status(&mut server.caller()), 200, "the shared secret serves beside the set");
}

#[test]
fn a_key_host_that_is_away_is_reported_and_asked_again() {
    let issuer = Issuer::new("late");
    let host = KeyHost::start(None);
    let server = host.site().start();
    let ready = server.admin("/readyz").expect("an answer").expect(200).json();
    assert_ne!(ready["components"]["jwks"], "ok", "{ready}");
    assert_eq!(status(&mut server.caller()), 200, "the shared secret serves meanwhile");

    host.serve(json!([issuer.jwk()]));
    let mut caller = Caller::new(server.listen, Some(issuer.token()));
    Stopwatch::wait_until(Duration::from_secs(30), "the set is fetched at last", || {
        status(&mut caller) == 200
    });
    let ready = server.admin("/readyz").expect("an answer").expect(200).json();
    assert_eq!(ready["components"]["jwks"], "ok", "{ready}");
}
