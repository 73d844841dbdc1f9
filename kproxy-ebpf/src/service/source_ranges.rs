//! Who may open connections to a load-balancer address that is not open to all.

use aya_ebpf::maps::lpm_trie::Key;
use kproxy_common::{
    net::Addr,
    ranges::{self, RangeData},
    service::{FrontendValue, frontend_flags, service_port_id},
};

use crate::maps::{CONFIG, RANGES};

/// Whether the frontend is open to some sources only.
#[inline(always)]
pub(crate) fn is_restricted(frontend: &FrontendValue) -> bool {
    frontend.flags & frontend_flags::SOURCE_RANGES != 0
}

/// Whether a packet from `source` may open a connection to the frontend.
#[inline(always)]
pub(crate) fn allows(frontend: &FrontendValue, source: &Addr) -> bool {
    !is_restricted(frontend) || holds(frontend, source, ranges::ADDRESS_BITS)
}

/// Whether every pod may: the pod range of the address's family lies within a range as a whole.
#[inline(always)]
pub(crate) fn allows_all_pods(frontend: &FrontendValue, dialled: &Addr) -> bool {
    let Some(config) = CONFIG.get(0) else { return false };
    let pods = if dialled.is_v4() { &config.cluster[0] } else { &config.cluster[1] };
    match ranges::prefix_len_of(pods) {
        Some(prefix_len) => holds(frontend, &pods.base, prefix_len),
        None => false,
    }
}

/// Whether a range of the frontend's service port holds the first `prefix_len` bits.
#[inline(never)]
fn holds(frontend: &FrontendValue, addr: &Addr, prefix_len: u32) -> bool {
    let service_port = service_port_id(frontend.internal);
    RANGES.get(Key::new(prefix_len, RangeData { service_port, addr: *addr })).is_some()
}
