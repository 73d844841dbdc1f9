//! What programs at devices have in common: the early pass, parsing, fragments, ICMP errors, packets of this
//! node's processes, and the carrying out of verdicts. What is the hook's own is a [`Hook`].

use aya_ebpf::{macros::map, maps::PerCpuArray, programs::TcContext};
use kproxy_common::{
    config::{Config, config_flags},
    counters::NO_SERVICE,
    drop_reason::DropReason,
    flow::FlowValue,
    net::Addr,
    service::frontend_flags,
    trace::outcome,
};

use crate::{
    flow::{
        admit::{self, flow_of},
        filter, fragments, open, opener, table, track,
    },
    kernel::{Clock, now, scratch},
    maps::CONFIG,
    packet::{Packet, early, icmp_error::IcmpError},
    path::{forward::forward_own, redirect::Back, refuse},
    service::{
        lookup::{self, Lookup},
        source_ranges,
    },
    skb, stats, trace,
    verdict::{Kind, Verdict},
};

/// One of the programs at a device. `L3`: offset of the IP header.
pub(super) trait Hook {
    /// Whether packets leave by the device.
    const EGRESS: bool;
    /// One of [`kproxy_common::trace::trace_hook`].
    const HOOK: u32;
    /// The way back to who sent the packet.
    const BACK: Back;

    /// Whether a packet of TCP to this address that opens nothing is passed on at a glance.
    #[inline(always)]
    fn passes(_ctx: &TcContext, to: &Addr) -> bool {
        !filter::has_flows_to(to)
    }

    /// What becomes of a packet. `ours`: set if it belongs to a flow that is translated here.
    fn packet<const L3: usize>(ctx: &TcContext, packet: &Packet, ours: &mut bool) -> Verdict;

    /// What becomes of an ICMP error about a packet of the flow with this entry; `None` if the hook leaves
    /// it alone.
    fn error<const L3: usize>(
        ctx: &TcContext,
        error: &IcmpError,
        value: &FlowValue,
    ) -> Option<Result<Verdict, DropReason>>;
}

/// The packet at hand, with the clock beside it: one look at a map for both.
#[map(name = "KP_SEEN")]
static SEEN: PerCpuArray<Seen> = PerCpuArray::with_max_entries(1, 0);

struct Seen {
    clock: Clock,
    packet: Packet,
}

/// Runs the hook on the packet, unless it is seen at a glance to be of no flow and to open none; what the
/// program returns.
#[inline(always)]
pub(super) fn run<const L3: usize, H: Hook>(ctx: &TcContext) -> i32 {
    let opens_nothing = early::destination_if_opens_nothing::<L3>(ctx);
    if opens_nothing.is_some_and(|to| H::passes(ctx, &to)) {
        return Verdict::PASS.action();
    }
    let Some(Seen { clock, packet }) = scratch(&SEEN) else { return Verdict::PASS.action() };
    packet.egress = H::EGRESS;
    // At once: kept in a register it would have the verifier walk the parser twice.
    packet.has_flows = opens_nothing.is_some();
    if packet.parse::<L3>(ctx).is_none() {
        return error::<L3, H>(ctx).action();
    }
    let Some(config) = CONFIG.get(0) else { return Verdict::PASS.action() };
    if skb::is_translated(ctx, H::EGRESS, config) {
        return Verdict::PASS.action();
    }
    packet.now = clock.now();
    let is_leaving = config.flags & config_flags::LEAVING != 0;
    if packet.is_later() && !fragments::recall(packet) {
        if is_leaving {
            return Verdict::PASS.action();
        }
        let verdict = fragments::hold::<L3>(ctx, packet);
        if verdict.is(Kind::End) {
            trace::ended(ctx, &packet.key, outcome::DROPPED, H::HOOK);
        }
        return verdict.action();
    }
    if is_leaving && !table::has_any(packet) {
        return Verdict::PASS.action();
    }
    let mut ours = false;
    let verdict = H::packet::<L3>(ctx, packet, &mut ours);
    if ours {
        skb::set_translated(ctx, H::EGRESS, config.host_netns);
    }
    if packet.is_first() {
        fragments::remember(ctx, packet, ours);
    }
    let is_refused = verdict.is(Kind::Refuse);
    let verdict = refuse::answer::<L3>(ctx, packet, verdict, H::BACK);
    if verdict.is(Kind::End) {
        trace::ended(ctx, &packet.key, outcome::DROPPED, H::HOOK);
    } else if is_refused {
        trace::ended(ctx, &packet.key, outcome::REFUSED, H::HOOK);
    }
    verdict.action()
}

/// Notes that a packet is translated for this flow here.
#[inline(always)]
pub(super) fn note(ctx: &TcContext, value: &FlowValue, ours: &mut bool) {
    stats::count_packet(value.service, ctx.len());
    *ours = true;
}

/// A packet of a flow that nothing is translated of.
#[inline(always)]
pub(super) fn pass_on(packet: &Packet, found: Option<&'static mut FlowValue>) -> Verdict {
    if let Some(value) = found {
        track::continues_flow(packet, value);
    }
    Verdict::PASS
}

/// An ICMP error about a packet of a flow, on its way to who sent the packet.
#[inline(never)]
fn error<const L3: usize, H: Hook>(ctx: &TcContext) -> Verdict {
    let Some(config) = CONFIG.get(0) else { return Verdict::PASS };
    if skb::is_translated(ctx, H::EGRESS, config) {
        return Verdict::PASS;
    }
    let Some(error) = IcmpError::parse::<L3>(ctx) else { return Verdict::PASS };
    let Some(value) = table::find(error.key(), now()) else { return Verdict::PASS };
    error.follow(value);
    let Some(result) = H::error::<L3>(ctx, error, value) else { return Verdict::PASS };
    stats::count_packet(value.service, ctx.len());
    skb::set_translated(ctx, H::EGRESS, config.host_netns);
    result.unwrap_or_else(|reason| {
        let dropped = Verdict::drop(value.service, reason);
        trace::ended(ctx, error.key(), outcome::DROPPED, H::HOOK);
        dropped
    })
}

/// Whether such a packet is translated for the node's processes, whose sockets have a backend otherwise. Those
/// that are bound to a loopback address have none: from there no other machine is reached.
#[inline(always)]
pub(super) fn serves_processes(packet: &Packet) -> bool {
    packet.key.src.is_loopback() || CONFIG.get(0).is_some_and(|config| serves_all(packet, config))
}

/// Whether no hook gives a backend to sockets that send such packets, whatever they are bound to.
#[inline(always)]
pub(super) fn serves_all(packet: &Packet, config: &Config) -> bool {
    packet.is_sctp() || config.flags & config_flags::NODE_PACKETS != 0
}

/// A packet that a process of this node sends: of the flow that was `found` for it, or one that opens.
#[inline(always)]
pub(super) fn own_packet<const L3: usize>(
    ctx: &TcContext,
    packet: &Packet,
    found: Option<&'static mut FlowValue>,
    ours: &mut bool,
    back: Back,
) -> Verdict {
    match flow_of::<L3, { opener::NODE }>(ctx, packet, found, dial_of_node) {
        Ok(value) => {
            note(ctx, value, ours);
            forward_own::<L3>(ctx, packet, value, back)
        }
        Err(verdict) => verdict,
    }
}

/// Whether a frontend is dialled, and may be. The node counts as inside the cluster.
#[inline(never)]
fn dial_of_node(packet: &Packet) -> Verdict {
    let key = &packet.key;
    match lookup::frontend(&key.dst.of_node(), key.dst_port, key.proto) {
        Lookup::Frontend(frontend) => {
            let service = frontend.internal;
            // LBR-03: the kernel's choice for an address of the node is that address.
            let is_node = key.src == key.dst && frontend.flags & frontend_flags::NODE_ALLOWED != 0;
            if is_node || source_ranges::allows(&frontend, &key.src) {
                Verdict::admit(service)
            } else {
                Verdict::drop(service, DropReason::SourceNotAllowed)
            }
        }
        Lookup::UnknownPort => Verdict::turn_away(NO_SERVICE, DropReason::UnknownPort),
        Lookup::NotOurs if lookup::is_free_service_address(&key.dst) => {
            Verdict::drop(NO_SERVICE, DropReason::FreeServiceAddress)
        }
        Lookup::NotOurs => {
            // A packet that this program has sent on is seen here once more, and its flow lives.
            let _its_own = admit::collides(packet);
            open::remember_own(packet);
            Verdict::PASS
        }
    }
}
