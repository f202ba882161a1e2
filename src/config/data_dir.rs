//! The data directory and what the first start puts into it.
//!
//! Invariant: a file of the first start is either absent or whole. It is written under another name, synced, and
//! linked to its own name, which fails if somebody else was faster; then theirs counts.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{node::NodeName, source::Source};
use crate::secret::Secret;

/// Where the signing secret of the first start is kept.
const SECRET_FILE: &str = "jwt-secret";

/// Where the name under which this directory claims a worker ID is kept.
const IDENTITY_FILE: &str = "worker-identity";

/// Where the node name is kept.
const NODE_NAME_FILE: &str = "node-name";

/// For the owner alone.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Bytes of randomness in a signing secret, and in the suffix of a node name.
const SECRET_BYTES: usize = 32;
const SUFFIX_BYTES: usize = 3;

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The directory or a file in it cannot be made, read or written.
    #[error("data directory (NUMGEN_DATA_DIR): cannot {step} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file of the first start was changed to something that cannot be used.
    #[error("{}: {problem}", .path.display())]
    Spoiled {
        /// The file.
        path: PathBuf,
        /// What is wrong and what would be right.
        problem: &'static str,
    },
    /// There is no randomness.
    #[error("the system gives no random numbers")]
    Randomness(#[source] getrandom::Error),
    /// Nothing was ever started here.
    #[error(
        "there is no signing secret in {}: start numgen once with this data directory, or set NUMGEN_JWT_SECRET",
        .path.display()
    )]
    NoSecret {
        /// The directory.
        path: PathBuf,
    },
}

/// A data directory that exists.
#[derive(Clone, Debug)]
pub struct DataDir {
    path: PathBuf,
    age: Age,
}

/// Whether this process made the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    New,
    Old,
}

impl DataDir {
    /// Makes the directory, for the owner alone, unless it is there.
    ///
    /// # Errors
    ///
    /// It cannot be made, or is something else.
    pub fn prepare(path: &Path) -> Result<Self, DataDirError> {
        let failed = |source| DataDirError::Io { step: "make", path: path.to_owned(), source };
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).create(parent).map_err(failed)?;
        }
        let age = match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
            Ok(()) => Age::New,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Age::Old,
            Err(error) => return Err(failed(error)),
        };
        Ok(Self { path: path.to_owned(), age })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this process made the directory.
    pub fn is_new(&self) -> bool {
        self.age == Age::New
    }

    /// The signing secret; made at the first call ever.
    ///
    /// # Errors
    ///
    /// It cannot be written or read, or was emptied.
    pub fn signing_secret(&self) -> Result<Secret<String>, DataDirError> {
        self.keep(SECRET_FILE, || Ok(hex(&random::<SECRET_BYTES>()?)))?;
        existing_signing_secret(&self.path)
    }

    /// The name under which this directory claims a fixed worker ID; made at the first call ever. A copy of the directory is
    /// a second service that passes for the first: never start both.
    ///
    /// # Errors
    ///
    /// It cannot be written or read, or was changed.
    pub fn identity(&self) -> Result<[u8; 16], DataDirError> {
        let text = self.keep(IDENTITY_FILE, || Ok(hex(&random::<16>()?)))?;
        identity_in(&self.path, &text)
    }

    /// The node name; made of the host name and a random suffix at the first call ever, so that a renamed host keeps
    /// its name and two hosts of one name do not share it.
    ///
    /// # Errors
    ///
    /// It cannot be written or read, or is no node name.
    pub fn node_name(&self, source: &impl Source) -> Result<NodeName, DataDirError> {
        let text = self.keep(NODE_NAME_FILE, || {
            let suffix = hex(&random::<SUFFIX_BYTES>()?);
            let host = source.host_name().unwrap_or_default();
            Ok(NodeName::of_host(&host, &suffix).map_or(suffix, |name| name.as_str().to_owned()))
        })?;
        NodeName::parse(&text).ok_or_else(|| DataDirError::Spoiled {
            path: self.path.join(NODE_NAME_FILE),
            problem: "holds no node name (1 to 64 of A-Z a-z 0-9 . _ -): correct it, or remove it to get a new one",
        })
    }

    /// The content of a file, which `make` is asked for if it does not exist.
    fn keep(
        &self,
        name: &str,
        make: impl FnOnce() -> Result<String, DataDirError>,
    ) -> Result<String, DataDirError> {
        let path = self.path.join(name);
        if let Some(text) = read(&path)? {
            return Ok(text);
        }
        let text = make()?;
        let draft = self.path.join(format!("{name}.{}", hex(&random::<8>()?)));
        let outcome = self.write_and_link(&draft, &path, &text);
        let _ = fs::remove_file(&draft);
        outcome?;
        // Somebody may have been faster: what is there now counts.
        read(&path)?.ok_or_else(|| failure("read", &path)(io::ErrorKind::NotFound.into()))
    }

    fn write_and_link(&self, draft: &Path, path: &Path, text: &str) -> Result<(), DataDirError> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(draft)
            .map_err(failure("make", draft))?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.write_all(b"\n"))
            .and_then(|()| file.sync_all())
            .map_err(failure("write", draft))?;
        match fs::hard_link(draft, path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failure("make", path)(error)),
        }
        File::open(&self.path).and_then(|dir| dir.sync_all()).map_err(failure("sync", &self.path))
    }
}

/// The signing secret of a data directory that a service has used; makes nothing.
///
/// # Errors
///
/// There is none, or it cannot be read or used.
pub fn existing_signing_secret(directory: &Path) -> Result<Secret<String>, DataDirError> {
    let path = directory.join(SECRET_FILE);
    let Some(text) = read(&path)? else {
        return Err(DataDirError::NoSecret { path: directory.to_owned() });
    };
    if text.len() < SECRET_BYTES {
        let problem =
            "holds fewer than 32 bytes: restore it, or remove it to get a new one (old tokens end then)";
        return Err(DataDirError::Spoiled { path, problem });
    }
    Ok(Secret::new(text))
}

/// The name under which a data directory claims a fixed worker ID; `None`: it never has. Makes nothing.
///
/// # Errors
///
/// It cannot be read, or was changed.
pub fn existing_identity(directory: &Path) -> Result<Option<[u8; 16]>, DataDirError> {
    read(&directory.join(IDENTITY_FILE))?.map(|text| identity_in(directory, &text)).transpose()
}

fn identity_in(directory: &Path, text: &str) -> Result<[u8; 16], DataDirError> {
    let number = u128::from_str_radix(text, 16).map_err(|_| DataDirError::Spoiled {
        path: directory.join(IDENTITY_FILE),
        problem: "holds no 32 hexadecimal digits: remove it to get new ones",
    })?;
    Ok(number.to_be_bytes())
}

fn failure(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    let path = path.to_owned();
    move |source| DataDirError::Io { step, path, source }
}

/// The file's text without the newline at its end; `None` if there is no such file.
fn read(path: &Path) -> Result<Option<String>, DataDirError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failure("read", path)(error)),
    }
}

fn random<const N: usize>() -> Result<[u8; N], DataDirError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(DataDirError::Randomness)?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::FixedSource;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_first_start_makes_everything_for_the_owner_alone_and_the_second_finds_it() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("deep/data");
        let first = DataDir::prepare(&path).unwrap();
        let (secret, name) = (first.signing_secret().unwrap(), first.node_name(&FixedSource::new()).unwrap());
        assert!(first.is_new());
        assert_eq!(secret.reveal().len(), 64);
        assert!(name.as_str().starts_with("host-"), "{name}");
        assert_eq!((mode(&path), mode(&path.join("jwt-secret"))), (0o700, 0o600));

        let second = DataDir::prepare(&path).unwrap();
        assert!(!second.is_new());
        assert_eq!(second.signing_secret().unwrap(), secret);
        assert_eq!(second.node_name(&FixedSource::new()).unwrap(), name);
        assert_eq!(existing_signing_secret(&path).unwrap(), secret);
        let left: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "no draft is left behind: {left:?}");
    }

    #[test]
    fn secrets_differ() {
        let scratch = tempfile::tempdir().unwrap();
        let secret = |name| DataDir::prepare(&scratch.path().join(name)).unwrap().signing_secret().unwrap();
        assert_ne!(secret("a"), secret("b"));
    }

    #[test]
    fn racing_starts_agree() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = DataDir::prepare(scratch.path()).unwrap();
        let secrets: Vec<_> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| dir.signing_secret().unwrap())).collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        assert!(secrets.iter().all(|secret| *secret == secrets[0]));
    }

    #[test]
    fn what_cannot_be_used_is_said() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("file");
        fs::write(&file, "x").unwrap();
        let message = DataDir::prepare(&file).unwrap_err().to_string();
        assert!(message.starts_with("data directory (NUMGEN_DATA_DIR): cannot make "), "{message}");
        let message = existing_signing_secret(scratch.path()).unwrap_err().to_string();
        assert!(message.contains("start numgen once"), "{message}");
        fs::write(scratch.path().join("jwt-secret"), "canary\n").unwrap();
        let message = DataDir::prepare(scratch.path()).unwrap().signing_secret().unwrap_err().to_string();
        assert!(message.contains("fewer than 32 bytes") && !message.contains("canary"), "{message}");
        fs::write(scratch.path().join("node-name"), "a~b\n").unwrap();
        let message =
            DataDir::prepare(scratch.path()).unwrap().node_name(&FixedSource::new()).unwrap_err().to_string();
        assert!(message.contains("holds no node name"), "{message}");
    }
}
