//! Names, versions and sizes that loader, programs and debug CLI agree on.

use crate::pod::shared_numbers;

/// Version of all layouts in this crate. Pins live in `<bpffs-root>/kproxy/v<ABI_VERSION>/`.
pub const ABI_VERSION: u32 = if cfg!(feature = "other-layout") { 1003 } else { 3 };

/// Map names, at most 15 bytes (the kernel keeps no more). They are also the names of the pins.
pub mod map {
    /// Hash: [`crate::service::FrontendKey`] → [`crate::service::FrontendValue`].
    pub const FRONTENDS: &str = "KP_FRONTENDS";
    /// Mmapable array: service index → [`crate::service::Service`].
    pub const SERVICES: &str = "KP_SERVICES";
    /// Mmapable array: slot number → [`crate::service::Slot`].
    pub const SLOTS: &str = "KP_SLOTS";
    /// Mmapable array of 64-bit words: the address filter (see [`crate::filter`]).
    pub const FILTER: &str = "KP_FILTER";
    /// Mmapable array with one [`crate::config::Config`].
    pub const CONFIG: &str = "KP_CONFIG";
    /// Hash: device index (u32) → [`crate::config::Uplink`].
    pub const UPLINKS: &str = "KP_UPLINKS";
    /// Hash: service port id → [`crate::service::Name`].
    pub const NAMES: &str = "KP_NAMES";
    /// Hash: [`crate::flow::FlowKey`] → [`crate::flow::FlowValue`].
    pub const FLOWS: &str = "KP_FLOWS";
    /// Array: flows that may give way, [`crate::flow::unassured::Unassured`].
    pub const UNASSURED: &str = "KP_UNASSURED";
    /// Mmapable array with one element: how many flows are assured (u64).
    pub const ASSURED: &str = "KP_ASSURED";
    /// Mmapable array: the flow filter (see [`crate::filter::flow_position`]).
    pub const FLOW_FILTER: &str = "KP_FLOW_FILTER";
    /// Per-CPU array: service index → [`crate::counters::ServiceCounters`].
    pub const COUNTERS: &str = "KP_COUNTERS";
    /// Per-CPU hash: [`crate::counters::DropKey`] → packets or calls (u64).
    pub const DROPS: &str = "KP_DROPS";
    /// Socket storage: [`crate::socket::SocketState`].
    pub const SOCKETS: &str = "KP_SOCKETS";
    /// LRU hash: [`crate::affinity::AffinityKey`] → [`crate::affinity::AffinityValue`].
    pub const AFFINITY: &str = "KP_AFFINITY";
    /// LPM trie: prefix length and [`crate::ranges::RangeData`] → nothing of interest (u32).
    pub const RANGES: &str = "KP_RANGES";
    /// Hash: [`crate::load::LoadKey`] → open connections (i64).
    pub const LOAD: &str = "KP_LOAD";
    /// Hash: cookie of a network namespace (u64) → [`crate::netns::netns_verdict`] (u32).
    pub const NETNS: &str = "KP_NETNS";
    /// Mmapable array: what the maps mean, as text ([`crate::layouts`]), zeros behind it.
    pub const LAYOUT: &str = "KP_LAYOUT";
    /// Mmapable array with one [`crate::trace::Trace`]: what `kproxy trace` listens to.
    pub const TRACE: &str = "KP_TRACE";
    /// Ring buffer: [`crate::trace::Event`]s.
    pub const EVENTS: &str = "KP_EVENTS";
    /// Per-CPU array with one element: events that found no room, or were too many (u64).
    pub const UNTOLD: &str = "KP_UNTOLD";
    /// LRU hash, not pinned: fragments' [`crate::flow::FlowKey`] → [`crate::fragment::First`].
    pub const FRAGMENTS: &str = "KP_FRAGMENTS";
    /// Ring buffer, not pinned: [`crate::fragment::Note`]s.
    pub const EARLY: &str = "KP_EARLY";
    /// LRU hash, not pinned: connections of sockets that go by packets, by port and frontend
    /// ([`crate::flow::FlowKey`] without a source address) → nothing of interest (u32).
    pub const APART: &str = "KP_APART";
    /// LRU hash, not pinned: network namespace, port and backend of a bound socket
    /// ([`crate::socket::bound_key`]) → what it has dialled ([`crate::socket::Dialled`]).
    pub const BOUND: &str = "KP_BOUND";
    /// Array with one element, not pinned: the end of a large fragment that is injected.
    pub const INJECTED: &str = "KP_INJECTED";

    /// Every map that is pinned.
    pub const PINNED: [&str; 22] = [
        FRONTENDS,
        SERVICES,
        SLOTS,
        FILTER,
        CONFIG,
        UPLINKS,
        NAMES,
        FLOWS,
        UNASSURED,
        ASSURED,
        FLOW_FILTER,
        COUNTERS,
        DROPS,
        SOCKETS,
        AFFINITY,
        RANGES,
        LOAD,
        NETNS,
        LAYOUT,
        TRACE,
        EVENTS,
        UNTOLD,
    ];

    /// Those whose contents another version may go on with: all that have a meaning of their own, and not the
    /// settings, which are written anew at each start, nor what somebody listens to just now.
    pub fn handed_on() -> impl Iterator<Item = &'static str> {
        const OWN: [&str; 7] = [CONFIG, UPLINKS, NETNS, LAYOUT, TRACE, EVENTS, UNTOLD];
        PINNED.into_iter().filter(|name| !OWN.contains(name))
    }

    /// The others that both sides know.
    pub const UNPINNED: [&str; 3] = [FRAGMENTS, EARLY, INJECTED];
}

/// Program names; also the names of their pins.
pub mod program {
    /// Cgroup programs, in the order in which they are attached: the way back (recvmsg,
    /// getpeername) before the way there, so that no socket is translated one way only.
    pub const CGROUP: [&str; 8] = [
        "kp_recvmsg4",
        "kp_recvmsg6",
        "kp_getpeer4",
        "kp_getpeer6",
        "kp_sendmsg4",
        "kp_sendmsg6",
        "kp_connect4",
        "kp_connect6",
    ];
    /// Sees sockets close. Attached to the cgroup once a service picks by least connections.
    pub const RELEASE: &str = "kp_release";
    /// Answers what a UDP socket was told ([`crate::socket::SocketQuery`]); run by the daemon, never
    /// attached nor pinned.
    pub const UDP_SOCKET: &str = "kp_udp_socket";
    /// Puts a fragment back where it came from, or counts that it is lost
    /// ([`crate::fragment::Injection`]); run by the daemon, never attached nor pinned.
    pub const INJECT: &str = "kp_inject";
    /// Forgets flows whose time is up or whose backend has left ([`crate::flow::sweep::SweepQuery`]); run by the daemon, never
    /// attached nor pinned.
    pub const SWEEP: &str = "kp_sweep";
    /// Leaves connections of kube-proxy's to netfilter ([`crate::flow::adopt::AdoptQuery`]); run by the daemon,
    /// never attached nor pinned.
    pub const ADOPT: &str = "kp_adopt";
    /// Uplink ingress on devices with an Ethernet header.
    pub const INGRESS: &str = "kp_ingress";
    /// Uplink egress on devices with an Ethernet header.
    pub const EGRESS: &str = "kp_egress";
    /// Uplink ingress on devices whose packets start at the IP header (tun, WireGuard, IPIP).
    pub const INGRESS_L3: &str = "kp_ingress_l3";
    /// Uplink egress on devices whose packets start at the IP header.
    pub const EGRESS_L3: &str = "kp_egress_l3";
    /// Programs of devices, in the order in which they are attached: the way back before the way
    /// there, so that no connection is translated one way only.
    pub const DEVICE: [&str; 7] =
        [EGRESS, EGRESS_L3, POD_EGRESS, INGRESS, INGRESS_L3, POD_INGRESS, NODE_EGRESS];
    /// From a pod: ingress of the node's end of its link.
    pub const POD_INGRESS: &str = "kp_pod_ingress";
    /// To a pod: egress of the node's end of its link.
    pub const POD_EGRESS: &str = "kp_pod_egress";
    /// From this node to itself: egress of the loopback device.
    pub const NODE_EGRESS: &str = "kp_node_egress";
}

/// Name of the read-only global (u32, bits of [`kernel_feature`]) that says what the kernel has.
pub const GLOBAL_KERNEL_FEATURES: &str = "KERNEL_FEATURES";

shared_numbers! {
    /// What newer kernels have. The verifier never sees a call that its kernel lacks.
    pub mod kernel_feature {
        /// `bpf_ktime_get_coarse_ns`: kernel 5.11, commit d05512618056.
        pub const COARSE_CLOCK: u32 = 1;
        /// `bpf_set_retval`: kernel 5.18, commit b44123b4a3dc.
        pub const SET_RETVAL: u32 = 1 << 1;
        /// `BPF_FIB_LOOKUP_SKIP_NEIGH`: kernel 6.3, commit 31de4105f00d.
        pub const SKIP_NEIGH: u32 = 1 << 2;
        /// `bpf_skc_to_mptcp_sock`: kernel 5.19, commit 3bc253c2e652, where it has MPTCP.
        pub const MPTCP: u32 = 1 << 3;
        /// `bpf_get_current_pid_tgid` and `bpf_get_current_comm` where sockets connect: kernel 6.1, commit
        /// bed89185af0d.
        pub const CURRENT_TASK: u32 = 1 << 4;
    }
}

/// Each of [`kernel_feature`] with the first kernel that has it: major and minor version.
pub const KERNEL_FEATURES_SINCE: [(u32, u8, u8); 5] = [
    (kernel_feature::COARSE_CLOCK, 5, 11),
    (kernel_feature::SET_RETVAL, 5, 18),
    (kernel_feature::SKIP_NEIGH, 6, 3),
    (kernel_feature::MPTCP, 5, 19),
    (kernel_feature::CURRENT_TASK, 6, 1),
];

/// Mark bit for "masquerade this connection" (the bit kube-proxy uses by default, MSQ-07).
pub const MARK_MASQUERADE: u32 = 0x4000;

/// Bytes of [`map::LAYOUT`].
pub const LAYOUT_BYTES: u32 = 32 << 10;

/// Capacity that [`map::SERVICES`] and [`map::COUNTERS`] begin with, in entries (two a service port).
pub const FIRST_SERVICES: u32 = 8_192;
/// Capacity that [`map::SLOTS`] begins with, in slots.
pub const FIRST_SLOTS: u32 = 65_536;
/// Capacity that [`map::FRONTENDS`] begins with, in entries.
pub const FIRST_FRONTENDS: u32 = 32_768;
/// Bytes of [`map::EVENTS`]: some two thousand events.
pub const EVENT_BYTES: u32 = 256 << 10;
/// Default for the capacity that [`map::SERVICES`] and [`map::COUNTERS`] grow to at most.
pub const MOST_SERVICES: u32 = 524_288;
/// Default for the capacity that [`map::SLOTS`] grows to at most.
pub const MOST_SLOTS: u32 = 8 << 20;
/// Default for the capacity that [`map::FRONTENDS`] grows to at most.
pub const MOST_FRONTENDS: u32 = 2 << 20;
/// Default capacity of [`map::FLOWS`] in entries (two a connection).
pub const DEFAULT_FLOWS: u32 = 524_288;
/// Default capacity of [`map::UNASSURED`] in flows.
pub const DEFAULT_UNASSURED: u32 = crate::flow::unassured::elements(DEFAULT_FLOWS);
/// Default capacity of [`map::AFFINITY`] in clients, one entry a client and service port.
pub const DEFAULT_AFFINITY: u32 = 65_536;
/// Default capacity of [`map::RANGES`] in ranges, one entry a range and service port.
pub const DEFAULT_RANGES: u32 = 65_536;
