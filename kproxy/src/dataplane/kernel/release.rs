//! The version of the running kernel.

use aya::util::KernelVersion;

/// Whether the kernel is of this version or newer. One whose version cannot be told is taken for
/// the oldest.
pub(crate) fn is_at_least(major: u8, minor: u8) -> bool {
    KernelVersion::current().is_ok_and(|now| now >= KernelVersion::new(major, minor, 0))
}
