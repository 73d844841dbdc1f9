//! Network namespaces that the socket path knows (map [`crate::abi::map::NETNS`]), by the cookie of the
//! namespace. Asked only where some pods are opted out ([`crate::config::config_flags::OPT_OUT`]).

/// Values of the map. A namespace that is not in it is not decided yet: its sockets are left alone, as
/// packets of pods are translated at their link in any case.
pub mod netns_verdict {
    /// The socket path serves it.
    pub const SERVED: u32 = 1;
    /// It belongs to a pod that is opted out.
    pub const OPTED_OUT: u32 = 2;
}
