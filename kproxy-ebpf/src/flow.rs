//! Connection entries: opening, finding a backend whose answers can be told apart, touching.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_ANY, BPF_NOEXIST},
    helpers::{bpf_jiffies64, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns},
    programs::TcContext,
};
use kproxy_common::{
    abi::kernel_feature,
    affinity::client_kind,
    config::{Config, config_flags},
    drop_reason::DropReason,
    filter,
    flow::{FlowKey, FlowState, FlowValue, flow_flags},
    maglev,
    net::Addr,
    service::{Word, slot_flags},
};

use crate::{
    load,
    maps::{CONFIG, FLOW_FILTER, FLOWS, UPLINKS, has, scratch},
    packet::{self, Packet},
    pick,
    route::{self, Route},
    snat,
};

/// Seconds of CLOCK_MONOTONIC, up to 64 ticks old (0.64 s at 100 Hz): the kernel's clock takes a fifth
/// of what a packet costs here, its tick is one load.
#[inline(always)]
pub(crate) fn now() -> u32 {
    // SAFETY: a field of a live element.
    let Some(clock) = scratch(|scratch| unsafe { &raw mut (*scratch).clock }) else {
        return seconds();
    };
    // SAFETY: no arguments.
    let period = unsafe { bpf_jiffies64() } >> 6;
    if clock.period != period {
        *clock = Clock { period, seconds: seconds() };
    }
    clock.seconds
}

/// What [`now`] was when it was asked last.
pub(crate) struct Clock {
    /// Ticks of the kernel, by 64.
    period: u64,
    seconds: u32,
}

#[inline(never)]
fn seconds() -> u32 {
    // SAFETY: no arguments.
    let nanoseconds = unsafe {
        if has(kernel_feature::COARSE_CLOCK) {
            bpf_ktime_get_coarse_ns()
        } else {
            bpf_ktime_get_ns()
        }
    };
    (nanoseconds / 1_000_000_000) as u32
}

/// The live entry of this packet, if there is one.
#[inline(always)]
pub(crate) fn find(key: &FlowKey) -> Option<&'static mut FlowValue> {
    // SAFETY: a live element; fields are words, and a lost update costs at most a later time-out.
    FLOWS.get_ptr_mut(key).map(|value| unsafe { &mut *value })
}

/// As [`find`] for any packet: most are spared the hash by the flow filter.
#[inline(always)]
pub(crate) fn find_for(packet: &Packet) -> Option<&'static mut FlowValue> {
    if has_flows_to(&packet.key.dst) { find(&packet.key) } else { None }
}

/// Whether a packet is seen at a glance to be of no flow and to open none.
#[inline(always)]
pub(crate) fn is_strange<const L3: usize>(ctx: &TcContext) -> bool {
    packet::opens_nothing::<L3>(ctx).is_some_and(|to| !has_flows_to(&to))
}

/// Whether a flow may send to this address.
#[inline(always)]
pub(crate) fn has_flows_to(addr: &Addr) -> bool {
    let (element, byte) = filter::flow_position(addr);
    FLOW_FILTER.get(element).is_none_or(|bytes| bytes[byte & 7] != 0)
}

/// Puts an address into the flow filter, before the first entry whose packets go there.
#[inline(always)]
fn note_flows_to(addr: &Addr) {
    let (element, byte) = filter::flow_position(addr);
    if let Some(bytes) = FLOW_FILTER.get_ptr_mut(element) {
        // SAFETY: a live element; every writer stores the same value.
        unsafe { (*bytes)[byte & 7] = 1 };
    }
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

#[inline(always)]
fn note_node_flows() {
    if let Some(bytes) = FLOW_FILTER.get_ptr_mut(filter::POD_FLOWS) {
        // SAFETY: a live element; every writer stores the same value.
        unsafe { (*bytes)[filter::POD_FLOWS_OF_NODE] = 1 };
    }
}

/// Says that a pod-facing port has a flow to open. `false`: its answers would not be translated yet.
#[inline(always)]
fn may_open_pod_flow() -> bool {
    let Some(bytes) = FLOW_FILTER.get_ptr_mut(filter::POD_FLOWS) else { return false };
    // SAFETY: a live element; every writer stores the same value.
    unsafe {
        (*bytes)[filter::POD_FLOWS_WANTED] = 1;
        (*bytes)[filter::POD_FLOWS_ANSWERED] != 0
    }
}

/// Records that a packet of this direction has passed.
#[inline(always)]
pub(crate) fn touch(value: &mut FlowValue, packet: &Packet) {
    let now = now();
    if value.last_seen != now {
        value.last_seen = now;
    }
    if packet.is_rst() {
        value.flags |= flow_flags::RST;
        end(value);
    } else if packet.is_fin() {
        value.flags |= flow_flags::FIN;
        end(value);
    }
}

/// Marks both entries of a connection that is over. Only its last packets get here.
#[inline(never)]
fn end(value: &mut FlowValue) {
    let Some(other) = find(&value.to.reversed()) else { return };
    if value.flags & flow_flags::RST != 0 || other.flags & flow_flags::FIN != 0 {
        value.flags |= flow_flags::OVER;
        other.flags |= flow_flags::OVER;
        if value.flags & flow_flags::COUNTED != 0 {
            load::ended(value, other);
        }
    }
}

/// Ends the connection of a forward entry when an opening packet starts a new one on the same
/// addresses and ports: the old one is over, or it was never answered and the backends have changed
/// since (the retry goes to a live backend). Both entries go: the new connection may be refused.
#[inline(never)]
pub(crate) fn end_if_over(key: &FlowKey, forward: &FlowValue) -> bool {
    let reverse_key = forward.to.reversed();
    let over = is_over(forward, &reverse_key);
    if over {
        let _ = FLOWS.remove(&reverse_key);
        let _ = FLOWS.remove(key);
    }
    over
}

#[inline(always)]
fn is_over(forward: &FlowValue, reverse_key: &FlowKey) -> bool {
    if forward.flags & flow_flags::OVER != 0 {
        return true;
    }
    let Some(reverse) = find(reverse_key) else { return true };
    if FlowState::of(forward, reverse) != FlowState::Opening {
        return false;
    }
    match pick::word(forward.service) {
        Some(packed) => Word::unpack(packed).generation != forward.generation,
        None => true,
    }
}

/// Opens a flow: picks a backend and inserts both entries.
#[inline(always)]
pub(crate) fn open<const L3: usize, const POD: bool, const NODE: bool>(
    ctx: &TcContext,
    packet: &Packet,
    service: u32,
    word: Word,
) -> Result<(), DropReason> {
    let key = &packet.key;
    let config = CONFIG.get(0).ok_or(DropReason::BadMap)?;
    let Opening { forward, reverse, reverse_key } =
        // SAFETY: a field of a live element.
        scratch(|scratch| unsafe { &raw mut (*scratch).opening }).ok_or(DropReason::BadMap)?;
    if NODE {
        note_node_flows();
    }
    note_flows_to(&key.dst);
    // Field by field: whole values would be made on the stack first.
    let now = now();
    for value in [&mut *forward, &mut *reverse] {
        (value.generation, value.service, value.last_seen) = (word.generation, service, now);
        value.flags = 0;
    }
    reverse.to.set_reversed(key);
    let settings = pick::settings(service);
    reverse.flags = flow_flags::REVERSE | load::flag(settings);
    forward.to = *key;
    let hash = || maglev::hash(&key.src, key.src_port, key.proto);
    let slot = pick::backend(&key.src, client_kind::ADDRESS, service, word, settings, hash)?;
    (forward.to.dst, forward.to.dst_port) = (slot.addr, slot.port);
    if POD {
        if !may_open_pod_flow() {
            return Err(DropReason::AnswersNotReady);
        }
        if slot.addr == key.src {
            hairpin(config, forward, key);
        }
    } else if NODE {
        leave(ctx.skb.skb, forward, slot.flags);
    } else if slot.flags & slot_flags::LOCAL == 0 {
        // Without an Ethernet header a packet cannot be passed on.
        if L3 == 0 || !choose_source(ctx.skb.skb, config, forward) {
            forward.flags = masquerade(config);
        }
    }
    reverse_key.set_reversed(&forward.to);
    let claims = forward.flags & CLAIMS != 0 && config.snat_count != 0;
    reverse.flags |= forward.flags & (CLAIMS | flow_flags::DIRECT | flow_flags::AWAY);
    // The backend sees another port of the client where answers could not be told from those of a
    // connection that the same port has through another frontend, as with conntrack.
    if claims || !claim_reverse(reverse_key, reverse)? {
        let ports = if claims { snat::Ports::of(config) } else { snat::Ports::ANY };
        snat::claim(ports.pack(), reverse_key, reverse)?;
        forward.to.src_port = reverse_key.dst_port;
    }
    note_flows_to(&reverse_key.dst);
    forward.flags |= reverse.flags & flow_flags::COUNTED;
    if FLOWS.insert(key, &*forward, u64::from(BPF_ANY)).is_err() {
        let _ = FLOWS.remove(&*reverse_key);
        return Err(DropReason::FlowTableFull);
    }
    if forward.flags & flow_flags::COUNTED != 0 {
        load::opened(forward);
    }
    Ok(())
}

/// Flags of connections that have a source port of their own, where the programs have any to give.
const CLAIMS: u16 = flow_flags::SNAT | flow_flags::HAIRPIN | flow_flags::NODE;

/// A pod would not take a packet from itself, so it sees the frontend as its client. Where
/// netfilter does source NAT it does this one too.
#[inline(always)]
fn hairpin(config: &Config, value: &mut FlowValue, key: &FlowKey) {
    if config.snat_count == 0 {
        value.flags = masquerade(config);
        return;
    }
    value.to.src = key.dst;
    value.flags = flow_flags::HAIRPIN;
}

/// What [`open`] works on: too much for the stack.
pub(crate) struct Opening {
    forward: FlowValue,
    reverse: FlowValue,
    reverse_key: FlowKey,
}

/// Chooses the source that a backend elsewhere sees. Answers must come back to this node, so it is an
/// address of this node where the route leads out of an uplink. `false`: none is chosen.
#[inline(never)]
fn choose_source(skb: *mut __sk_buff, config: &Config, value: &mut FlowValue) -> bool {
    if config.snat_count == 0 {
        return false;
    }
    let mut route = Route::none();
    route::find(skb, &value.to, 0, &mut route);
    let is_set = set_source(route.device, value);
    if is_set {
        value.flags |= flow_flags::SNAT;
    }
    is_set
}

/// How a connection of a process of this node leaves, with which source: the kernel's choice, except
/// where it leads out of another uplink or could not be answered.
#[inline(never)]
fn leave(skb: *mut __sk_buff, value: &mut FlowValue, slot: u16) {
    value.flags = flow_flags::NODE;
    if value.to.src.is_loopback() {
        set_source(route::LOOPBACK, value);
    }
    let mut route = Route::none();
    route::find(skb, &value.to, 0, &mut route);
    // SAFETY: a plain read of a live context.
    if unsafe { (*skb).ifindex } == route.device {
        value.flags |= flow_flags::DIRECT | flow_flags::AWAY;
    }
    if route.device != 0 {
        if set_source(route.device, value) {
            value.flags |= flow_flags::AWAY;
        }
    } else if slot & slot_flags::LOCAL != 0 {
        value.flags |= flow_flags::HERE;
    }
}

/// Gives a connection the source address of this uplink. `false`: it has none.
#[inline(always)]
fn set_source(device: u32, value: &mut FlowValue) -> bool {
    // SAFETY: copied at once; user space only ever replaces whole elements.
    let Some(uplink) = (unsafe { UPLINKS.get(&device) }) else { return false };
    let source = if value.to.dst.is_v4() { &uplink.v4 } else { &uplink.v6 };
    if *source == Addr::default() {
        return false;
    }
    value.to.src = *source;
    true
}

/// Flags of a connection whose source the programs do not change. Without netfilter the route leads
/// to a device that is no uplink, so to pods of this node, whatever the endpoint says of itself: the
/// client's address stays.
#[inline(always)]
fn masquerade(config: &Config) -> u16 {
    if config.flags & config_flags::NETFILTER != 0 { flow_flags::MASQUERADE } else { 0 }
}

/// Inserts the reverse entry. `false`: another live connection owns it.
///
/// Everything comes by pointers that go on to helpers: LLVM would pass the fields of other
/// structs in registers, of which a BPF function has five.
#[inline(never)]
fn claim_reverse(key: &FlowKey, value: &FlowValue) -> Result<bool, DropReason> {
    if FLOWS.insert(key, value, u64::from(BPF_NOEXIST)).is_ok() {
        return Ok(true);
    }
    let Some(other) = find(key) else { return Err(DropReason::FlowTableFull) };
    if other.to != value.to {
        // Another frontend led this client port to this backend. Its answers could not be told
        // from ours while it lives.
        let forward_key = other.to.reversed();
        if let Some(forward) = find(&forward_key)
            && forward.to.reversed() == *key
        {
            if forward.flags & flow_flags::OVER == 0 {
                return Ok(false);
            }
            let _ = FLOWS.remove(&forward_key);
        }
    }
    match FLOWS.insert(key, value, u64::from(BPF_ANY)) {
        Ok(()) => Ok(true),
        Err(_) => Err(DropReason::FlowTableFull),
    }
}

/// Ends a flow whose answers would be mistaken for those of the direct connection that this packet
/// opens (same client port, straight to the backend), if its answers have these `flags`.
#[inline(never)]
pub(crate) fn end_stale(direct: &FlowKey, flags: u16) {
    if !has_flows_to(&direct.src) {
        return;
    }
    let reverse_key = direct.reversed();
    let Some(reverse) = find(&reverse_key) else { return };
    if reverse.flags & flags != flags {
        return;
    }
    let forward_key = reverse.to.reversed();
    // After the sweeper took the forward entry, the one that is there is of a newer flow.
    if find(&forward_key).is_some_and(|forward| forward.to == *direct) {
        let _ = FLOWS.remove(&forward_key);
    }
    let _ = FLOWS.remove(&reverse_key);
}
