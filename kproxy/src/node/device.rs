//! Network devices.

/// Index of the loopback device in every network namespace (include/net/flow.h).
pub const LOOPBACK: u32 = 1;

/// A device that gets the tc programs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Device {
    /// Name, for people and pins.
    pub name: String,
    /// Index, for attaching.
    pub index: u32,
    /// Packets start with an Ethernet header. Without it (tun, WireGuard, IPIP) they start at IP.
    pub ethernet: bool,
}
