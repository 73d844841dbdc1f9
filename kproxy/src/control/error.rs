//! What ends the control loop.

use crate::dataplane;

/// Why the loop has ended although nobody has asked for it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody tells what there is any more.
    #[error("the source of Services ended")]
    SourceEnded,
    /// The data path cannot work at all.
    #[error(transparent)]
    Attach(#[from] dataplane::Error),
}
