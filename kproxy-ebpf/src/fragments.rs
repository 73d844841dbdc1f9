//! Fragments: only the first has ports. What it said is kept for the others, which follow it. One that
//! comes before the first passes as it is and is lost: nothing can be kept back here.

use kproxy_common::{flow::FlowKey, net::Port};

use crate::{maps::FRAGMENTS, packet::Packet};

/// The key of a packet's fragments: its identification stands where the ports are.
#[inline(always)]
fn key_of(packet: &Packet) -> FlowKey {
    let mut key = packet.key;
    key.set_rest(Port(packet.id as u16), Port((packet.id >> 16) as u16), packet.key.proto);
    key
}

/// Keeps the ports of a first fragment.
#[inline(never)]
pub(crate) fn remember(packet: &Packet) {
    let key = key_of(packet);
    let ports = [packet.key.src_port, packet.key.dst_port];
    // Without memory for it the other fragments are lost.
    let _ = FRAGMENTS.insert(&key, &ports, 0);
}

/// Gives a later fragment the ports of its first one. `false`: they are not known.
#[inline(never)]
pub(crate) fn recall(packet: &mut Packet) -> bool {
    let key = key_of(packet);
    // SAFETY: copied at once; an evicted element would hold the ports of another packet, which is
    // then lost as it would be without them.
    let Some(ports) = (unsafe { FRAGMENTS.get(&key) }) else { return false };
    (packet.key.src_port, packet.key.dst_port) = (ports[0], ports[1]);
    true
}
