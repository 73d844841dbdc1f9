//! The flow filter: which addresses flows send to, and whether pod-facing ports have flows at all. It
//! spares most packets the look into the table.

use kproxy_common::{filter, net::Addr};

use crate::maps::FLOW_FILTER;

/// Whether a flow may send to this address.
#[inline(always)]
pub(crate) fn has_flows_to(addr: &Addr) -> bool {
    let (element, byte) = filter::flow_position(addr);
    FLOW_FILTER.get(element).is_none_or(|bytes| bytes[byte & 7] != 0)
}

/// Puts an address into the filter, before the first entry whose packets go there.
#[inline(always)]
pub(super) fn note_flows_to(addr: &Addr) {
    let (element, byte) = filter::flow_position(addr);
    set(element, byte & 7, filter::FRESH);
}

/// Whether a pod-facing port may have opened flows.
#[inline(always)]
pub(crate) fn has_pod_flows() -> bool {
    FLOW_FILTER.get(filter::POD_FLOWS).is_none_or(|bytes| bytes[filter::POD_FLOWS_WANTED] != 0)
}

/// Whether packets of flows may come from pods: their own, or answers to processes of this node.
#[inline(always)]
pub(crate) fn has_flows_from_pods() -> bool {
    FLOW_FILTER
        .get(filter::POD_FLOWS)
        .is_none_or(|bytes| bytes[filter::POD_FLOWS_WANTED] | bytes[filter::POD_FLOWS_OF_NODE] != 0)
}

/// Says that a process of this node has a flow to open.
#[inline(always)]
pub(super) fn note_node_flows() {
    set(filter::POD_FLOWS, filter::POD_FLOWS_OF_NODE, 1);
}

/// Says that a pod-facing port has a flow to open. `false`: its answers would not be translated yet.
#[inline(always)]
pub(crate) fn note_pod_flows() -> bool {
    set(filter::POD_FLOWS, filter::POD_FLOWS_WANTED, 1);
    answers_pods()
}

/// Whether what goes to pods passes a program.
#[inline(always)]
pub(crate) fn answers_pods() -> bool {
    FLOW_FILTER.get(filter::POD_FLOWS).is_some_and(|bytes| bytes[filter::POD_FLOWS_ANSWERED] != 0)
}

#[inline(always)]
fn set(element: u32, byte: usize, to: u8) {
    if let Some(bytes) = FLOW_FILTER.get_ptr_mut(element) {
        // SAFETY: a live element; programs only ever store this value, and user space exchanges what it
        // has compared.
        unsafe { (*bytes)[byte] = to };
    }
}
