//! Opening a flow: a backend is picked whose answers can be told apart, both entries are inserted.

use aya_ebpf::{bindings::__sk_buff, macros::map, maps::PerCpuArray, programs::TcContext};
use kproxy_common::{
    affinity::client_kind,
    config::{Config, config_flags},
    counters::NO_SERVICE,
    drop_reason::DropReason,
    flow::{CLAIMS, FlowKey, FlowValue, flow_flags, flow_state, state::is_over, track},
    maglev,
    net::Addr,
    service::{Word, slot_flags},
    socket::apart_key,
};

use super::{
    filter, opener,
    source_port::{self, Claim},
    table, unassured,
};
use crate::{
    kernel::{scratch, ticks},
    maps::{APART, CONFIG, UPLINKS},
    packet::{
        Packet,
        rewrite::{self, rewrite},
    },
    path::route::{self, Route},
    service::{load, lookup, pick},
    skb, trace,
    verdict::Verdict,
};

/// What [`open`] works on: too much for the stack.
#[map(name = "KP_OPENING")]
static OPENING: PerCpuArray<Opening> = PerCpuArray::with_max_entries(1, 0);

struct Opening {
    forward: FlowValue,
    claim: Claim,
}

/// Opens a flow: picks a backend and inserts both entries. `slot`: its element among those that give
/// way, and one.
#[inline(always)]
pub(super) fn open<const L3: usize, const OPENER: u8>(
    ctx: &TcContext,
    packet: &Packet,
    service: u32,
    word: Word,
    slot: u32,
) -> Result<(), DropReason> {
    let key = &packet.key;
    let config = CONFIG.get(0).ok_or(DropReason::BadMap)?;
    let Opening { forward, claim } = begin(packet, service, slot)?;
    let Claim { key: reverse_key, value: reverse, .. } = claim;
    if OPENER == opener::NODE {
        filter::note_node_flows();
    }
    (forward.generation, reverse.generation) = (word.generation, word.generation);
    let settings = pick::settings(service);
    reverse.flags |= load::flag(settings);
    let hash = || maglev::hash(&key.src, key.src_port, key.proto);
    let slot = pick::backend(&key.src, client_kind::ADDRESS, service, word, settings, hash)?;
    (forward.to.dst, forward.to.dst_port) = (slot.addr, slot.port);
    if OPENER == opener::POD {
        if !filter::note_pod_flows() {
            return Err(DropReason::AnswersNotReady);
        }
        if slot.addr == key.src {
            hairpin(config, forward, key);
        }
    } else if OPENER == opener::NODE {
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
    if claims || OPENER != opener::OUTSIDE && is_apart(key) || !claim_reverse(reverse_key, reverse)?
    {
        let ports = if claims { source_port::Ports::of(config) } else { source_port::Ports::ANY };
        source_port::claim(ports.pack(), claim)?;
        forward.to.src_port = claim.key.dst_port;
    }
    forward.flags |= claim.value.flags & flow_flags::COUNTED;
    insert(key, forward, &claim.key)?;
    if forward.flags & flow_flags::COUNTED != 0 {
        load::opened(forward);
    }
    let hook = opener::hook(OPENER, skb::device(ctx.skb.skb) == route::LOOPBACK);
    trace::opened(ctx, key, &forward.to, service, hook);
    Ok(())
}

/// Ends what the backend holds half-open for the last owner of the source port that a SYN has just got, or
/// it would answer the SYN with a challenge (RFC 5961 section 4), if at all: it does so twice a second. The
/// SYN comes in once more and finds its flow; before that the stack gets in its place what the backend would
/// have sent, and answers with the RST that the backend takes. `None`: there is nothing of the kind.
#[inline(never)]
pub(super) fn clear_port<const L3: usize>(ctx: &TcContext, packet: &Packet) -> Option<Verdict> {
    let Opening { forward, claim } = scratch(&OPENING)?;
    // SCTP keeps its tags where TCP keeps numbers.
    if !packet.is_tcp()
        || claim.expected == 0
        || forward.flags & flow_flags::SNAT == 0
        || !skb::comes_again(ctx)
    {
        return None;
    }
    forward.to = claim.key;
    let cleared = rewrite::<L3>(ctx, packet, forward, 0)
        .and_then(|()| rewrite::acknowledge(ctx, packet, claim.expected));
    Some(match cleared {
        Some(()) => Verdict::PASS,
        None => Verdict::drop(forward.service, DropReason::RewriteFailed),
    })
}

/// Opens a flow for a connection past every frontend, straight to a backend that has another one with
/// the same addresses and ports: it gets another port, and both live.
#[inline(always)]
pub(super) fn direct<const OPENER: u8>(packet: &Packet, slot: u32) -> Result<(), DropReason> {
    let Opening { forward, claim } = begin(packet, NO_SERVICE, slot)?;
    if OPENER == opener::POD && !filter::note_pod_flows() {
        return Err(DropReason::AnswersNotReady);
    }
    claim.key.set_reversed(&packet.key);
    source_port::claim(source_port::Ports::ANY.pack(), claim)?;
    forward.to.src_port = claim.key.dst_port;
    insert(&packet.key, forward, &claim.key)
}

/// Remembers a datagram that this node sends from a port that is a NodePort, too: its answer is for
/// whoever has sent it, and is no request.
#[inline(always)]
pub(crate) fn remember_own(packet: &Packet) {
    if packet.is_udp() && lookup::is_node_port(&packet.key) && !is_arriving() {
        remember(packet);
    }
}

/// Whether such a datagram may be an answer that programs of another version have translated where it came in.
#[inline(always)]
fn is_arriving() -> bool {
    CONFIG.get(0).is_some_and(|config| config.flags & config_flags::ARRIVING != 0)
}

#[inline(never)]
fn remember(packet: &Packet) {
    let slot = unassured::take();
    if try_remember(packet, slot).is_some() {
        unassured::set(slot, &packet.key);
    }
}

#[inline(always)]
fn try_remember(packet: &Packet, slot: u32) -> Option<()> {
    let Opening { forward, claim } = begin(packet, NO_SERVICE, slot).ok()?;
    let Claim { key: reverse_key, value: reverse, .. } = claim;
    forward.flags = flow_flags::UNTRANSLATED;
    reverse.flags |= flow_flags::UNTRANSLATED;
    reverse_key.set_reversed(&packet.key);
    // A flow with these addresses and ports is a client's, and the answer goes its way.
    table::insert(reverse_key, reverse).ok()?.then_some(())?;
    insert(&packet.key, forward, reverse_key).ok()
}

/// Both values as far as the packet says them, which goes on unchanged so far.
#[inline(always)]
fn begin(packet: &Packet, service: u32, slot: u32) -> Result<&'static mut Opening, DropReason> {
    let opening = scratch(&OPENING).ok_or(DropReason::BadMap)?;
    let Opening { forward, claim: Claim { value: reverse, .. } } = &mut *opening;
    filter::note_flows_to(&packet.key.dst);
    let opened = ticks() as u16;
    // Field by field: whole values would be made on the stack first.
    for value in [&mut *forward, &mut *reverse] {
        (value.service, value.last_seen, value.slot) = (service, packet.now, slot);
        (value.generation, value.state, value.opened) = (0, flow_state::UNREPLIED, opened);
        (value.end, value.ack, value.syn) = (packet.now, 0, 0);
    }
    if !packet.is_udp() {
        track::open(forward, reverse, &packet.segment, packet.is_tcp());
    }
    (forward.flags, reverse.flags) = (0, flow_flags::REVERSE);
    reverse.to.set_reversed(&packet.key);
    forward.to = packet.key;
    opening.claim.expected = 0;
    Ok(opening)
}

/// Inserts the forward entry; the reverse one is there.
#[inline(always)]
fn insert(key: &FlowKey, forward: &FlowValue, reverse_key: &FlowKey) -> Result<(), DropReason> {
    filter::note_flows_to(&reverse_key.dst);
    let inserted = table::replace(key, forward);
    if inserted.is_err() {
        table::remove(reverse_key);
    }
    inserted
}

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
    if skb::device(skb) == route.device {
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

/// Whether the sender has other connections with the same port, by its socket, and perhaps with the same backend.
#[inline(never)]
fn is_apart(key: &FlowKey) -> bool {
    let apart = apart_key(key.src_port, key.dst, key.dst_port, key.proto);
    // SAFETY: nothing is read from it.
    unsafe { APART.get(&apart) }.is_some()
}

/// Inserts the reverse entry. `false`: another live connection owns it.
///
/// Everything comes by pointers that go on to helpers: LLVM would pass the fields of other
/// structs in registers, of which a BPF function has five.
#[inline(never)]
fn claim_reverse(key: &FlowKey, value: &FlowValue) -> Result<bool, DropReason> {
    if table::insert(key, value)? {
        return Ok(true);
    }
    let Some(other) = table::find(key, value.last_seen) else {
        // Its time was up just now, or another CPU has taken it away.
        return table::insert(key, value);
    };
    // Another frontend led this client port to this backend, or the backend has a connection with it
    // that nothing is known of. Its answers could not be told from ours while it lives.
    if !is_over(other.state) && (!other.to.eq(&value.to) || other.flags & flow_flags::COLLIDES != 0)
    {
        return Ok(false);
    }
    table::forget(key, other);
    table::insert(key, value)
}
