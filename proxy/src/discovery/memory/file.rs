//! Reads and replaces the one file of a folder that belongs to the proxy alone.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// Name of the file.
const NAME: &str = "peers.json";
/// More is neither written nor read. Ten versions of the documents of a cluster with 10,000 resources fit in.
const LIMIT: u64 = 128 * 1024 * 1024;

/// Why a file is not used, or not written.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The file system refused.
    #[error("{}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// Somebody else can write it, or it is no file.
    #[error("{} is not a file that only this user can write", path.display())]
    NotOwn {
        /// File.
        path: PathBuf,
    },
    /// Larger than any that was written here.
    #[error("{bytes} bytes, more than {LIMIT}")]
    TooLarge {
        /// Size.
        bytes: u64,
    },
    /// Not such a file at all, or of a later version of this program.
    #[error("not a file of this version: {found:?}")]
    Format {
        /// Its beginning.
        found: String,
    },
    /// Another node's.
    #[error("written on another node, or for another API server")]
    Foreign,
    /// Not as it was written.
    #[error("damaged: the checksum is not that of the content")]
    Damaged,
    /// The checksum is right and the content is not.
    #[error("unusable content")]
    Content(#[source] serde_json::Error),
}

impl MemoryError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_path_buf(), source }
    }
}

/// The content; `None` when there is no file.
pub(super) fn read(folder: &Path) -> Result<Option<Vec<u8>>, MemoryError> {
    let path = folder.join(NAME);
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(&path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(MemoryError::io(&path)(error)),
    };
    let metadata = file.metadata().map_err(MemoryError::io(&path))?;
    let is_own = metadata.uid() == nix::unistd::geteuid().as_raw() && metadata.mode() & 0o022 == 0;
    if !metadata.is_file() || !is_own {
        return Err(MemoryError::NotOwn { path });
    }
    if metadata.len() > LIMIT {
        return Err(MemoryError::TooLarge { bytes: metadata.len() });
    }
    let mut bytes = Vec::new();
    file.take(LIMIT).read_to_end(&mut bytes).map_err(MemoryError::io(&path))?;
    Ok(Some(bytes))
}

/// Puts a new content in the place of the old one: whoever reads finds the one or the other, also after a power cut.
pub(super) fn replace(folder: &Path, bytes: &[u8]) -> Result<(), MemoryError> {
    let size = bytes.len() as u64;
    if size > LIMIT {
        return Err(MemoryError::TooLarge { bytes: size });
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(MemoryError::io(folder))?;
    let own = File::open(folder).map_err(MemoryError::io(folder))?;
    // A proxy that is being replaced writes here too. Their process ids do not tell them apart: in a container each is 1.
    let own = Flock::lock(own, FlockArg::LockExclusive)
        .map_err(|(_, errno)| MemoryError::io(folder)(errno.into()))?;
    let fresh = folder.join(format!("{NAME}.new"));
    let written = write(&fresh, bytes).and_then(|()| std::fs::rename(&fresh, folder.join(NAME)));
    if let Err(error) = written {
        let _ = std::fs::remove_file(&fresh);
        return Err(MemoryError::io(&fresh)(error));
    }
    own.sync_all().map_err(MemoryError::io(folder))
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // One of a process that was killed in the middle may be there.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
