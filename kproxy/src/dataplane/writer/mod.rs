//! The only writer of the kernel maps.
//!
//! It compares what is wanted with what the maps hold and writes the difference, in this order:
//!
//! 1. backend sets: a new run of slots, then one store of the set's word (no system call);
//! 2. new source ranges, new and changed frontends, then address entries and filter bits of their
//!    addresses;
//! 3. frontends that go, then their address entries and filter bits;
//! 4. sets and source ranges that nobody asks for any more, names, and the release of slots and ids.
//!
//! So no frontend ever leads to a set that is not there, and a frontend that passes from one
//! service port to another is replaced in one step. A new service port that does not fit is refused
//! as a whole, one that is there loses the backends that are gone and waits for the others, and both
//! are tried again when something was freed, or when the maps have grown.
//!
//! The backends in force are not kept in memory twice: they are read from the shared slots. A
//! restarted daemon therefore compares in the same way as a running one.

mod addresses;
mod allocator;
#[cfg(test)]
mod fake;
mod frontends;
mod growth;
mod kernel_maps;
mod maps;
mod missing;
mod open;
mod passes;
mod problems;
mod ranges;
mod room;
mod sets;
mod state;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(super) use self::allocator::GRACE_PERIOD;
pub(super) use self::{kernel_maps::KernelMaps, state::Writer};
