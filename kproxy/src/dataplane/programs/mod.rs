//! The BPF programs: loading them, attaching them, and taking every trace of them away.
//!
//! ```text
//! load: map_shapes, memlock ─▶ object, maps, pinned programs
//! attachments ─▶ cgroup, devices (tcx links, or clsact filters) ─▶ pinned links
//! predecessor: what another layout version has left; takeover, copier, layout: its maps and flows go on
//! growth: larger maps in the place of full ones
//! cleanup: everything that is pinned, of every version
//! ```
//!
//! Links are pinned, so they outlive the daemon. On a restart the pinned link gets the new program in
//! one step: there is no moment without one. Whatever others have attached stays where it is and keeps
//! running.

pub(super) mod attachments;
pub(super) mod cleanup;
pub(super) mod clsact;
pub(super) mod devices;
pub(super) mod growth;
pub(super) mod load;
pub(super) mod pinning;
pub(super) mod pins;
pub(super) mod place;
pub(super) mod predecessor;
pub(super) mod takeover;

mod cgroup;
mod copier;
mod layout;
mod map_shapes;
mod memlock;
#[cfg(test)]
mod tests;
