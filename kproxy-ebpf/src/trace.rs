//! What `kproxy trace` is told of connections, where they are decided: never for packets of flows that are open.
//! While nobody listens that is one load and one comparison.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_netns_cookie, bpf_get_smp_processor_id,
        generated::bpf_get_current_comm,
    },
    maps::ring_buf::RingBufEntry,
    programs::{SockAddrContext, TcContext},
};
use kproxy_common::{
    abi::kernel_feature,
    drop_reason::DropReason,
    flow::FlowKey,
    net::{Addr, Port},
    socket::Peer,
    trace::{Event, Trace, bit_of_address, bit_of_netns, bit_of_service, outcome},
};

use crate::{
    kernel::{has, nanoseconds},
    maps::{EVENTS, TRACE, UNTOLD},
    skb,
    stats::{self, Limited},
};

/// Whether somebody listens, or has.
#[inline(always)]
fn is_on() -> bool {
    // SAFETY: a plain read of a live element.
    TRACE
        .get_ptr(0)
        .is_some_and(|trace| unsafe { core::ptr::read_volatile(&raw const (*trace).until) } != 0)
}

/// Tells that a packet is given a flow, which sends it `to` a backend.
#[inline(always)]
pub(crate) fn opened(ctx: &TcContext, key: &FlowKey, to: &FlowKey, service: u32, hook: u32) {
    if is_on() {
        packet(ctx, key, to, service, hook << 8 | outcome::GIVEN);
    }
}

/// Tells that a packet is refused or dropped ([`outcome`]), for the reason that was counted last.
#[inline(always)]
pub(crate) fn ended(ctx: &TcContext, key: &FlowKey, outcome: u32, hook: u32) {
    if is_on()
        && let Some(last) = stats::last_drop()
    {
        packet(ctx, key, key, last.service, last.reason << 16 | hook << 8 | outcome);
    }
}

/// `what`: reason, hook and outcome.
#[inline(never)]
fn packet(ctx: &TcContext, key: &FlowKey, to: &FlowKey, service: u32, what: u32) {
    let mut ends = bit_of_address(&key.src) | bit_of_address(&key.dst);
    let is_given = what & 0xff == outcome::GIVEN;
    if is_given {
        ends |= bit_of_address(&to.dst);
    }
    let Some((mut entry, time)) = reserve(what >> 16, bit_of_service(service, &key.dst), ends)
    else {
        return;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: a record of our own until it is submitted.
    unsafe {
        fill(event, time, service, what);
        (*event).netns = 0;
        (*event).source = key.src;
        (*event).source_port = key.src_port;
        (*event).frontend = key.dst;
        (*event).frontend_port = key.dst_port;
        (*event).backend = if is_given { to.dst } else { Addr::default() };
        (*event).backend_port = if is_given { to.dst_port } else { Port(0) };
        (*event).proto = key.proto;
        (*event).device = skb::device(ctx.skb.skb);
        (*event).pid = 0;
        (*event).comm = [0; 16];
    }
    entry.submit(0);
}

/// Tells what becomes of a call: `peer` has its ends, and the backend if it is given one.
#[inline(always)]
pub(crate) fn call(ctx: &SockAddrContext, peer: &Peer, refused: Option<DropReason>, hook: u32) {
    if is_on() {
        let (outcome, reason) = match refused {
            Some(reason) => (outcome::REFUSED, reason as u32),
            None => (outcome::GIVEN, 0),
        };
        socket(ctx, peer, reason << 16 | hook << 8 | outcome);
    }
}

#[inline(never)]
fn socket(ctx: &SockAddrContext, peer: &Peer, what: u32) {
    // SAFETY: the helper takes the context.
    let netns = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    let ends = bit_of_address(&peer.source)
        | bit_of_address(&peer.frontend)
        | bit_of_address(&peer.backend)
        | bit_of_netns(netns);
    let service = bit_of_service(peer.service, &peer.frontend);
    let Some((mut entry, time)) = reserve(what >> 16, service, ends) else { return };
    let event = entry.as_mut_ptr();
    // SAFETY: a record of our own until it is submitted, and fields of a live context.
    unsafe {
        fill(event, time, peer.service, what);
        (*event).netns = netns;
        (*event).source = peer.source;
        (*event).source_port = Port(0);
        (*event).frontend = peer.frontend;
        (*event).frontend_port = peer.frontend_port;
        (*event).backend = peer.backend;
        (*event).backend_port = peer.backend_port;
        (*event).proto = core::ptr::read_volatile(&raw const (*ctx.sock_addr).protocol) as u8;
        (*event).device = 0;
        (*event).pid = 0;
        (*event).comm = [0; 16];
        if has(kernel_feature::CURRENT_TASK) {
            (*event).pid = (bpf_get_current_pid_tgid() >> 32) as u32;
            // Where it fails it leaves nothing but zeros. Straight to its place: the stack has little room.
            let comm = &raw mut (*event).comm;
            let _unnamed = bpf_get_current_comm(comm.cast(), size_of::<[u8; 16]>() as u32);
        }
    }
    entry.submit(0);
}

/// Room for an event, and its time, if it is wanted and may be told.
#[inline(always)]
fn reserve(reason: u32, service: u64, ends: u64) -> Option<(RingBufEntry<Event>, u64)> {
    // SAFETY: a live element; who listens writes whole words, and a program makes 0 of one that is over.
    let trace: &mut Trace = unsafe { &mut *TRACE.get_ptr_mut(0)? };
    let time = nanoseconds();
    if time > trace.until {
        trace.until = 0;
        return None;
    }
    if !trace.wants(reason, service, ends) {
        return None;
    }
    let may = stats::may(Limited::Events, trace.a_second);
    let entry = if may { EVENTS.reserve::<Event>(0) } else { None };
    if entry.is_none()
        && let Some(untold) = UNTOLD.get_ptr_mut(0)
    {
        // SAFETY: a live element of this CPU's copy.
        unsafe { *untold += 1 };
    }
    Some((entry?, time))
}

/// Fills in what every event has.
///
/// # Safety
/// `event` has room for one.
#[inline(always)]
unsafe fn fill(event: *mut Event, time: u64, service: u32, what: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        (*event).time = time;
        (*event).service = service;
        (*event).what = what >> 16 << 16 | what & 0xff;
        (*event).hook = (what >> 8) as u8;
        (*event).cpu = bpf_get_smp_processor_id() as u32;
        (*event).pad = 0;
    }
}
