//! What becomes of a packet.

use aya_ebpf::bindings::TC_ACT_SHOT;
use kproxy_common::drop_reason::DropReason;

use crate::stats;

/// TCX_NEXT = TC_ACT_UNSPEC, so that other programs and the stack decide; also right for clsact.
const NEXT: i32 = -1;

/// What becomes of a packet: the kind of verdict, a number, and the service that the packet is for.
///
/// One register and no enum: the kernel's calling convention lets a function return 64 bits and no
/// more (Documentation/bpf/standardization/abi.rst), and the functions that decide are functions of
/// their own, for the sake of the stack.
#[derive(Clone, Copy)]
#[repr(transparent)]
#[must_use]
pub(crate) struct Verdict(u64);

/// The kinds of verdicts.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Goes on, translated or untouched.
    Pass,
    /// Goes where a redirecting helper has said.
    Redirect,
    /// Dials a frontend, and may: it is given a flow.
    Admit,
    /// Ends here: the daemon has the only copy.
    Hold,
    /// Ends here: dropped and counted.
    End,
    /// Ends here; the sender is told that nobody listens.
    Refuse,
    /// Ends here; the sender is told which size it may have.
    TooBig,
    /// Ends here; the sender is told that it has been on its way for too long.
    TimeExceeded,
}

impl Verdict {
    pub(crate) const PASS: Self = Self::new(Kind::Pass, 0, 0);
    /// The daemon has the only copy, and puts it back or counts it as lost.
    pub(crate) const HELD: Self = Self::new(Kind::Hold, 0, 0);

    #[inline(always)]
    const fn new(kind: Kind, service: u32, number: u32) -> Self {
        Self((kind as u64) << 56 | ((number & 0xff_ffff) as u64) << 32 | service as u64)
    }

    #[inline(always)]
    pub(crate) const fn admit(service: u32) -> Self {
        Self::new(Kind::Admit, service, 0)
    }

    /// What a redirecting helper has returned.
    #[inline(always)]
    pub(crate) const fn redirect(action: i64) -> Self {
        Self::new(Kind::Redirect, 0, action as u32)
    }

    /// Drops a packet for `service`, or for [`kproxy_common::counters::NO_SERVICE`]. It is counted here,
    /// where reason and service are known, and not where the verdict is carried out: so no drop is
    /// without a count, and the verifier sees one verdict in place of one for each reason.
    #[inline(always)]
    pub(crate) fn drop(service: u32, reason: DropReason) -> Self {
        stats::count_drop(service, reason);
        Self::new(Kind::End, 0, 0)
    }

    /// As [`Self::drop`], a refusal where the reason is one that clients are told of.
    #[inline(always)]
    pub(crate) fn turn_away(service: u32, reason: DropReason) -> Self {
        let dropped = Self::drop(service, reason);
        match reason {
            DropReason::NoBackend | DropReason::UnknownPort | DropReason::NoFlow => {
                Self::new(Kind::Refuse, service, 0)
            }
            _ => dropped,
        }
    }

    /// The packet is larger than `mtu` bytes.
    #[inline(always)]
    pub(crate) const fn too_big(service: u32, mtu: u32) -> Self {
        Self::new(Kind::TooBig, service, mtu)
    }

    #[inline(always)]
    pub(crate) const fn time_exceeded(service: u32) -> Self {
        Self::new(Kind::TimeExceeded, service, 0)
    }

    #[inline(always)]
    pub(crate) const fn is(self, kind: Kind) -> bool {
        self.0 >> 56 == kind as u64
    }

    /// Whether the sender is to be told: see [`crate::path::refuse`].
    #[inline(always)]
    pub(crate) const fn is_answered(self) -> bool {
        self.0 >> 56 >= Kind::Refuse as u64
    }

    #[inline(always)]
    pub(crate) const fn service(self) -> u32 {
        self.0 as u32
    }

    /// MTU in bytes of [`Kind::TooBig`], the action of [`Kind::Redirect`].
    #[inline(always)]
    pub(crate) const fn number(self) -> u32 {
        (self.0 >> 32) as u32 & 0xff_ffff
    }

    /// What the program returns.
    #[inline(always)]
    pub(crate) const fn action(self) -> i32 {
        if self.is(Kind::Pass) {
            NEXT
        } else if self.is(Kind::Redirect) {
            self.number() as i32
        } else {
            TC_ACT_SHOT
        }
    }
}
