//! At which hook the packets of an entry are translated: said here and nowhere else.
//!
//! | entry | translated at |
//! |---|---|
//! | request, whatever its source becomes | ingress, where it comes in |
//! | answer to one whose client is seen as it is | egress, where it leaves |
//! | answer to [`SNAT`](flow_flags::SNAT) | ingress of an uplink |
//! | answer to [`HAIRPIN`](flow_flags::HAIRPIN) | ingress of the pod's port |
//! | request of a process of this node | egress of an uplink or of the loopback device; ingress once it was returned |
//! | answer to it | ingress of an uplink ([`AWAY`](flow_flags::AWAY)) or of a pod's port; egress of the loopback device |
//! | either way of what this node has sent itself ([`UNTRANSLATED`]) | nowhere |

use kproxy_common::flow::flow_flags::{AWAY, HAIRPIN, KINDS, NODE, REVERSE, SNAT, UNTRANSLATED};

/// What a packet is to the hook that sees it, by the flags of its entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is translated here.
    Here,
    /// A request of a process of this node: translated here if it was sent (egress) or returned
    /// (ingress) by this node itself.
    HereIfOwn,
    /// Of a connection of this node's own that nothing is translated of; its entry takes note.
    Untranslated,
    /// It is translated at another hook of its way.
    Elsewhere,
    /// Packets of its flow never come by here: it has a forged source, and redirected at once it would
    /// pass the stack's checks of sources.
    Misplaced,
}

/// At ingress of a pod's port (`POD`) or of an uplink.
#[inline(always)]
pub(crate) const fn at_ingress<const POD: bool>(flags: u16) -> Place {
    match flags & KINDS {
        NODE => Place::HereIfOwn,
        _ if flags & UNTRANSLATED != 0 => Place::Untranslated,
        _ if is_misplaced::<POD>(flags) => Place::Misplaced,
        REVERSE => Place::Elsewhere,
        _ => Place::Here,
    }
}

#[inline(always)]
const fn is_misplaced<const POD: bool>(flags: u16) -> bool {
    if flags & NODE != 0 {
        return POD == (flags & AWAY != 0);
    }
    let elsewhere = if POD { SNAT } else { HAIRPIN };
    flags & elsewhere != 0
}

/// At egress of a pod's port or of an uplink.
#[inline(always)]
pub(crate) const fn at_egress(flags: u16) -> Place {
    match flags & KINDS {
        REVERSE => Place::Here,
        NODE => Place::HereIfOwn,
        _ if flags & UNTRANSLATED != 0 => Place::Untranslated,
        _ => Place::Elsewhere,
    }
}

/// At egress of the loopback device, of packets that this node sends.
#[inline(always)]
pub(crate) const fn at_loopback(flags: u16) -> Place {
    match flags {
        _ if flags & NODE != 0 => Place::Here,
        _ if flags & UNTRANSLATED != 0 => Place::Untranslated,
        _ => Place::Elsewhere,
    }
}
