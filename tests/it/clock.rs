//! Clocks that step back (libfaketime): uniqueness never rests on them.

use std::{collections::HashSet, fs, thread, time::Duration};

use serde_json::json;

use crate::harness::{Site, faketime};

/// A place whose clock is `offset` away from the true one; the monotonic clock stays.
fn bent(site: &Site, library: &std::path::Path, offset: &str) -> Site {
    site.clone()
        .with("LD_PRELOAD", &library.to_string_lossy())
        .with("FAKETIME", offset)
        .with("FAKETIME_DONT_FAKE_MONOTONIC", "1")
}

#[test]
fn snowflakes_stay_unique_when_the_clock_steps_back_over_a_restart() {
    let Some(library) = faketime() else { return };
    let site = Site::new();
    let mut all: Vec<String> = Vec::new();
    for (life, offset) in ["+0s", "-1h", "-10s", "-1d", "+0s"].into_iter().enumerate() {
        let server = bent(&site, &library, offset).start();
        let mut caller = server.caller();
        if life == 0 {
            caller.register("FLAKE", &json!({ "format": "F-{SEQ:19}" }));
            caller.register("COUNT", &json!({ "format": "C-{SEQ:4}" }));
        }
        for _ in 0..3 {
            all.extend(caller.get("/numbers/FLAKE?count=100").expect(200).numbers());
        }
        if offset == "-1h" {
            // Longer than the first window: it has to be renewed on a clock that is an hour behind its mark.
            thread::sleep(Duration::from_millis(1_500));
            all.extend(caller.get("/numbers/FLAKE?count=100").expect(200).numbers());
        }
        assert_eq!(caller.number("COUNT"), format!("C-{:04}", life + 1), "counters do not look at the clock");
        if life % 2 == 0 {
            drop(server.kill_9());
        } else {
            drop(server.stop());
        }
    }
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 1600, "each once");
    assert!(
        all.windows(2).all(|pair| pair[0] < pair[1]),
        "and upward: windows of a slot begin above the last mark"
    );
}

#[test]
fn snowflakes_go_on_when_the_clock_steps_back_under_way() {
    let Some(library) = faketime() else { return };
    let site = Site::new();
    let hands = site.path("hands");
    fs::write(&hands, "+0s\n").expect("written");
    let server = bent(&site, &library, "+0s")
        .without("FAKETIME")
        .with("FAKETIME_TIMESTAMP_FILE", &hands.to_string_lossy())
        .with("FAKETIME_NO_CACHE", "1")
        .start();
    let mut caller = server.caller();
    caller.register("FLAKE", &json!({ "format": "F-{SEQ:19}" }));
    let mut all = caller.get("/numbers/FLAKE?count=500").expect(200).numbers();
    for offset in ["-20s", "-5s", "-25s"] {
        fs::write(&hands, format!("{offset}\n")).expect("written");
        all.extend(caller.get("/numbers/FLAKE?count=500").expect(200).numbers());
        all.push(caller.number("FLAKE"));
    }
    assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "a step back is never an error by itself");
}
