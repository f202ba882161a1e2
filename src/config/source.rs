//! What surrounds the process, behind a trait, so that no test touches the process environment.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

/// Where variables, files and the host name come from.
pub trait Source {
    /// All environment variables, by name.
    fn variables(&self) -> BTreeMap<OsString, OsString>;

    /// The content of a file.
    ///
    /// # Errors
    ///
    /// As `std::fs::read`.
    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// The name of this host, if it is known.
    fn host_name(&self) -> Option<String>;
}

/// The real surroundings.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessSource;

impl Source for ProcessSource {
    fn variables(&self) -> BTreeMap<OsString, OsString> {
        std::env::vars_os().collect()
    }

    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn host_name(&self) -> Option<String> {
        // Linux answers in the first, other systems usually set the second.
        let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        kernel.or_else(|| std::env::var("HOSTNAME").ok()).map(|name| name.trim().to_owned())
    }
}

/// Surroundings that a test makes up.
#[derive(Clone, Debug, Default)]
pub struct FixedSource {
    variables: BTreeMap<OsString, OsString>,
    files: BTreeMap<PathBuf, Vec<u8>>,
    host: Option<String>,
}

impl FixedSource {
    /// No variable, no file.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// With one more file.
    #[must_use]
    pub fn file(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.insert(path.into(), content.into());
        self
    }

    /// On a host of this name.
    #[must_use]
    pub fn host(self, name: &str) -> Self {
        Self { host: Some(name.to_owned()), ..self }
    }
}

impl Source for FixedSource {
    fn variables(&self) -> BTreeMap<OsString, OsString> {
        self.variables.clone()
    }

    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn host_name(&self) -> Option<String> {
        Some(self.host.clone().unwrap_or_else(|| "host".to_owned()))
    }
}
