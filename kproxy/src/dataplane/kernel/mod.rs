//! The kernel's side of the border, as far as aya does not offer it: the bpf(2) calls, arrays as
//! shared memory, whole hash maps, sockets with what programs keep in them, the programs' clock and the version of the kernel. Knows
//! nothing of Services.

pub(super) mod bpf;
pub(super) mod clock;
pub(super) mod diag;
pub(super) mod hash;
pub(super) mod memory;
pub(super) mod program;
pub(super) mod release;
