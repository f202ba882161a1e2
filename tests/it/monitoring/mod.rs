//! What watches the service: dashboards, recording rules, alerts and the runbook, held to the service and to each other.
//!
//! [`dashboards`] and [`alerts`] read files alone, [`live`] asks a real Prometheus that scrapes real servers under load and outage.
//! The stage `observe` of `make test` runs exactly this module, since it needs `prometheus` and `promtool`.

mod alerts;
mod dashboards;
mod drawing;
mod live;
mod prometheus;
mod queries;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A path of the repository.
fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[track_caller]
fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The files of a folder with this extension, by name.
#[track_caller]
fn files(folder: &str, extension: &str) -> Vec<String> {
    let entries = fs::read_dir(path(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(&format!(".{extension}"))).collect();
    names.sort();
    assert!(!names.is_empty(), "{folder}/*.{extension}");
    names.iter().map(|name| format!("{folder}/{name}")).collect()
}
