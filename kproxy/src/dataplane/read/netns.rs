//! Which network namespaces the socket path serves.

use kproxy_common::abi::map;

use super::{error::ReadError, pins::Pins};
use crate::{
    dataplane::{codec, kernel::hash},
    plan::SocketVerdicts,
};

impl Pins {
    /// Which network namespaces the socket path serves and which it leaves alone, by cookie.
    ///
    /// # Errors
    /// The map could not be read.
    pub(crate) fn socket_verdicts(&self) -> Result<SocketVerdicts, ReadError> {
        let entries = hash::read(&self.netns).map_err(ReadError::of_map(map::NETNS))?;
        Ok(codec::decode_socket_verdicts(entries))
    }
}
