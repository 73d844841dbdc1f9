//! Network devices.

use nix::net::if_::if_indextoname;

/// Index of the loopback device in every network namespace (include/net/flow.h).
pub const LOOPBACK: u32 = 1;

/// A device that gets the tc programs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Device {
    /// Name, for people: it may change.
    pub name: String,
    /// Index: what the device is known by as long as it exists.
    pub index: u32,
    /// Packets start with an Ethernet header. Without it (tun, WireGuard, IPIP) they start at IP.
    pub ethernet: bool,
}

impl Device {
    /// The loopback device.
    pub(crate) fn loopback() -> Self {
        Self { name: "lo".to_owned(), index: LOOPBACK, ethernet: true }
    }
}

/// The name of the device with this index, which may have been renamed since it was looked at; `None`:
/// it is gone.
pub(crate) fn name_of(index: u32) -> Option<String> {
    // nix takes a null pointer, which means that there is none, for success.
    let name = if_indextoname(index).ok().filter(|name| !name.is_empty())?;
    Some(name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_gone_has_no_name() {
        assert_eq!(name_of(LOOPBACK).as_deref(), Some("lo"));
        assert_eq!((name_of(0), name_of(u32::MAX)), (None, None));
    }
}
