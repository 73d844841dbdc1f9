//! Network namespaces that the socket path knows (map [`crate::abi::map::NETNS`]), by the cookie of the
//! namespace. Asked only where some pods are opted out ([`crate::config::config_flags::OPT_OUT`]).

use crate::pod::shared_numbers;

shared_numbers! {
    /// Values of the map. The sockets of a namespace that is not in it are left alone, too: packets
    /// of pods are translated at their link in any case.
    pub mod netns_verdict {
        /// The socket path serves it.
        pub const SERVED: u32 = 1;
        /// It belongs to a pod that is opted out: left alone.
        pub const OPTED_OUT: u32 = 2;
        /// It may belong to one: left alone.
        pub const UNDECIDED: u32 = 3;
    }
}
