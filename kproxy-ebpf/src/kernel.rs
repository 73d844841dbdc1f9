//! What the programs ask of the kernel itself: its clock, its random numbers, what it has.

use core::arch::asm;

use aya_ebpf::{
    bindings::bpf_sock,
    helpers::{bpf_get_prandom_u32, bpf_jiffies64, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns},
    macros::map,
    maps::PerCpuArray,
};
use kproxy_common::{abi::kernel_feature, net::Port};

/// What the kernel has (bits of `abi::kernel_feature`); the loader sets it before the programs are
/// verified, so that older kernels never see calls that they lack.
#[unsafe(no_mangle)]
static KERNEL_FEATURES: u32 = 0;

/// Whether the kernel has this feature.
#[inline(always)]
pub(crate) fn has(feature: u32) -> bool {
    // SAFETY: a plain read of a live static; volatile, because the loader changes it.
    unsafe { core::ptr::read_volatile(&raw const KERNEL_FEATURES) & feature != 0 }
}

/// What [`now`] was when this CPU asked last.
#[map(name = "KP_CLOCK")]
static CLOCK: PerCpuArray<Clock> = PerCpuArray::with_max_entries(1, 0);

/// A clock of one CPU.
pub(crate) struct Clock {
    /// Ticks of the kernel, by 64.
    period: u64,
    seconds: u32,
}

impl Clock {
    /// Seconds of CLOCK_MONOTONIC, up to 64 ticks old (0.64 s at 100 Hz): the kernel's clock takes a
    /// fifth of what a packet costs here, its tick is one load.
    #[inline(always)]
    pub(crate) fn now(&mut self) -> u32 {
        // SAFETY: no arguments.
        let period = unsafe { bpf_jiffies64() } >> 6;
        if self.period != period {
            *self = Self { period, seconds: seconds() };
        }
        self.seconds
    }
}

/// [`Clock::now`] of this CPU.
#[inline(always)]
pub(crate) fn now() -> u32 {
    scratch(&CLOCK).map_or_else(seconds, Clock::now)
}

/// The lower half of the kernel's ticks (jiffies), and never 0.
#[inline(always)]
pub(crate) fn ticks() -> u32 {
    // SAFETY: no arguments.
    unsafe { bpf_jiffies64() as u32 | 1 }
}

/// Adds to a number that other CPUs count with, too. Rust has no atomic addition for this target; this
/// one is of every kernel, as it does not ask for the old value (kernel 5.12).
///
/// # Safety
/// `number` is a live element of a map, eight-byte aligned.
#[inline(always)]
pub(crate) unsafe fn add_atomically(number: *mut i64, change: i64) {
    // SAFETY: the caller's promise.
    unsafe { asm!("lock *(u64 *)({} + 0) += {}", in(reg) number, in(reg) change) };
}

/// Seconds of CLOCK_MONOTONIC.
#[inline(never)]
pub(crate) fn seconds() -> u32 {
    let nanoseconds = if has(kernel_feature::COARSE_CLOCK) {
        // SAFETY: no arguments.
        unsafe { bpf_ktime_get_coarse_ns() }
    } else {
        nanoseconds()
    };
    (nanoseconds / 1_000_000_000) as u32
}

/// Nanoseconds of CLOCK_MONOTONIC.
#[inline(always)]
pub(crate) fn nanoseconds() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// The port that a socket is connected to, 0 for none; read as the four bytes that it was before 5.18 (commit
/// 4421a582718a).
///
/// # Safety
/// `socket` is one of a live context, or held.
#[inline(always)]
pub(crate) unsafe fn remote_port(socket: *const bpf_sock) -> Port {
    // SAFETY: the caller's promise.
    Port(unsafe { core::ptr::read_volatile((&raw const (*socket).dst_port).cast::<u32>()) } as u16)
}

/// Any number.
#[inline(always)]
pub(crate) fn random() -> u32 {
    // SAFETY: no arguments.
    unsafe { bpf_get_prandom_u32() }
}

/// This CPU's copy of the only element of `map`: room for what is too large for the stack of 512
/// bytes. Each such map stands beside its only user.
#[inline(always)]
#[expect(
    clippy::mut_from_ref,
    reason = "a map is the kernel's memory, which a shared static names"
)]
pub(crate) fn scratch<T>(map: &'static PerCpuArray<T>) -> Option<&'static mut T> {
    // SAFETY: this CPU's own copy, of which nobody else has a use while this program runs (the tc
    // programs run with bottom halves off, one at a time), and its user asks once at a time; plain
    // integers, of which any bytes are valid.
    map.get_ptr_mut(0).map(|scratch| unsafe { &mut *scratch })
}

/// `length + CHANGE`, behind the compiler's back: it would compare other numbers than those that the
/// verifier must know. And that of 5.10 learns from a sum that a length is not 0, not from a comparison.
#[inline(always)]
pub(crate) fn plus<const CHANGE: i32>(mut length: u64) -> u64 {
    // SAFETY: an addition.
    unsafe { asm!("{} += {}", inout(reg) length, const CHANGE) };
    length
}
