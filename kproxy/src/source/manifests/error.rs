//! Why a folder cannot be followed at all.

use std::io;
use std::path::PathBuf;

use tokio::task::JoinError;

/// What ends the source. What is wrong with the files is none: it is a problem.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The folder is not there or cannot be watched.
    #[error("watch the folder {}; give an existing folder to --manifests", dir.display())]
    Watch {
        /// The folder.
        dir: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// Reading has panicked.
    #[error("read the folder of manifests")]
    Read(#[source] JoinError),
}
