//! What `kproxy trace` is told: which events it wants, and the events.
//!
//! The programs say what becomes of a connection where they decide it: a backend is given, or a packet or call is
//! refused or dropped. Packets of flows that are open say nothing, so they are not slowed down by the question
//! whether somebody listens.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::counters::NO_SERVICE;
use crate::net::{Addr, Port};
use crate::pod::{shared_layout, shared_numbers};
use crate::service::service_port_id;

/// The one entry of [`crate::abi::map::TRACE`]: what is listened to, and until when.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Trace {
    /// Nanoseconds of CLOCK_MONOTONIC until which events are written; 0: none are. Who listens puts it off again and
    /// again; a program that finds it in the past makes it 0.
    pub until: u64,
    /// Bits by [`crate::drop_reason::DropReason`]; bit 0: a backend is given.
    pub reasons: u64,
    /// Bits by [`bit_of_service`].
    pub services: u64,
    /// Bits by [`bit_of_address`] and [`bit_of_netns`]: an event passes with any of its ends.
    pub ends: u64,
    /// Events that each CPU writes in a second.
    pub a_second: u32,
    /// Always 0.
    pub pad: u32,
}

/// What has become of a connection, a packet or a call (ring buffer [`crate::abi::map::EVENTS`]).
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Event {
    /// Nanoseconds of CLOCK_MONOTONIC.
    pub time: u64,
    /// Cookie of the socket's network namespace; of packets 0.
    pub netns: u64,
    /// Who sends. Of sockets the address that they are bound to, if they are.
    pub source: Addr,
    /// What is dialled.
    pub frontend: Addr,
    /// The backend that is given, or nothing.
    pub backend: Addr,
    /// Port of `source`.
    pub source_port: Port,
    /// Port of `frontend`.
    pub frontend_port: Port,
    /// Port of `backend`.
    pub backend_port: Port,
    /// IP protocol number.
    pub proto: u8,
    /// [`trace_hook`].
    pub hook: u8,
    /// Service index, or [`NO_SERVICE`].
    pub service: u32,
    /// [`outcome`] in the lower half, [`crate::drop_reason::DropReason`] or 0 in the upper one.
    pub what: u32,
    /// Index of the device that the packet is at; of sockets 0.
    pub device: u32,
    /// The CPU.
    pub cpu: u32,
    /// The process; 0 for packets, and where the kernel does not tell.
    pub pid: u32,
    /// Always 0.
    pub pad: u32,
    /// Its name.
    pub comm: [u8; 16],
}

shared_numbers! {
    /// What becomes of it.
    pub mod outcome {
        /// A backend is given.
        pub const GIVEN: u32 = 1;
        /// Refused, and the sender is told.
        pub const REFUSED: u32 = 2;
        /// Dropped.
        pub const DROPPED: u32 = 3;
    }
}

shared_numbers! {
    /// Where it is decided.
    pub mod trace_hook {
        /// Packets that come in by an uplink.
        pub const INGRESS: u32 = 1;
        /// Packets that leave by an uplink.
        pub const EGRESS: u32 = 2;
        /// Packets that come from a pod.
        pub const POD_INGRESS: u32 = 3;
        /// Packets that go to a pod.
        pub const POD_EGRESS: u32 = 4;
        /// Packets that this node sends to itself.
        pub const NODE_EGRESS: u32 = 5;
        /// connect()
        pub const CONNECT: u32 = 6;
        /// sendmsg()
        pub const SENDMSG: u32 = 7;
    }
}

impl Trace {
    /// Whether such an event is wanted, as far as the bits tell: of what they let through some is not.
    #[inline(always)]
    pub fn wants(&self, reason: u32, service: u64, ends: u64) -> bool {
        self.reasons & 1 << (reason & 63) != 0
            && self.services & service != 0
            && self.ends & ends != 0
    }
}

/// The bit of a service; of what belongs to none that of the address that is dialled.
#[inline(always)]
pub fn bit_of_service(service: u32, frontend: &Addr) -> u64 {
    if service == NO_SERVICE {
        bit_of_address(frontend)
    } else {
        1 << (service_port_id(service) & 63)
    }
}

/// The bit of an address.
#[inline(always)]
pub fn bit_of_address(addr: &Addr) -> u64 {
    let [a, b, c, d] = addr.0;
    bit_of_number(a ^ b ^ c ^ d)
}

/// The bit of a network namespace, by its cookie.
#[inline(always)]
pub fn bit_of_netns(cookie: u64) -> u64 {
    bit_of_number(cookie as u32)
}

/// Multiplied by 2^32 over the golden ratio, whose upper bits depend on all of the number.
#[inline(always)]
fn bit_of_number(number: u32) -> u64 {
    1 << (number.wrapping_mul(0x9e37_79b1) >> 26)
}

shared_layout! {
    Trace: 40 { until, reasons, services, ends, a_second, pad }
    Event: 112 {
        time, netns, source, frontend, backend, source_port, frontend_port, backend_port, proto, hook,
        service, what, device, cpu, pid, pad, comm
    }
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;

    #[test]
    fn neighbours_have_other_bits() {
        let bit = |text: &str| bit_of_address(&text.parse::<IpAddr>().unwrap().into());
        let bits =
            (1..=8).map(|last| bit(&format!("10.244.1.{last}"))).fold(0, |all, bit| all | bit);
        assert!(bits.count_ones() >= 6, "{bits:b}");
        assert_ne!(bit("10.96.0.1"), bit("fd00:10:96::1"));
    }

    #[test]
    fn an_event_passes_all_three_masks() {
        let addr = Addr::from(IpAddr::from([10, 96, 0, 1]));
        let all = Trace { reasons: !0, services: !0, ends: !0, ..Trace::default() };
        let (service, ends) = (bit_of_service(6, &addr), bit_of_address(&addr));
        assert!(all.wants(21, service, ends));
        assert!(!Trace { reasons: 1, ..all }.wants(21, service, ends));
        assert!(!Trace { services: !service, ..all }.wants(21, service, ends));
        assert!(!Trace { ends: !ends, ..all }.wants(21, service, ends));
        // Both sets of a service port are one Service; what belongs to none goes by its address.
        assert_eq!(bit_of_service(6, &addr), bit_of_service(7, &Addr::default()));
        assert_eq!(bit_of_service(NO_SERVICE, &addr), ends);
    }
}
