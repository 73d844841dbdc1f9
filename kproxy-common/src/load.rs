//! Open connections of backends, for services that pick by least connections.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::net::{Addr, Port};
use crate::pod::{shared_layout, shared_numbers};

/// Whose connections are counted: those of one backend on one path, whichever service led there.
/// The value is their number (i64). It may be below zero for a moment, which counts as zero.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct LoadKey {
    /// Backend address.
    pub addr: Addr,
    /// Backend port.
    pub port: Port,
    /// [`counted`].
    pub path: u16,
}

shared_numbers! {
    /// What a [`LoadKey`] counts.
    pub mod counted {
        /// Flows of the packet path. User space counts the flow table again and corrects.
        pub const FLOWS: u16 = 0;
        /// Connected sockets that are not closed yet.
        pub const SOCKETS: u16 = 1;
    }
}

shared_layout! {
    LoadKey: 20 { addr, port, path }
}
