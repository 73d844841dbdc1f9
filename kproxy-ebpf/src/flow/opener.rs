//! Who opens a flow; numbers, as they are parameters of functions.

/// Somebody beyond an uplink.
pub(crate) const OUTSIDE: u8 = 0;
/// A pod of this node, by packets of its own.
pub(crate) const POD: u8 = 1;
/// A process of this node.
pub(crate) const NODE: u8 = 2;
