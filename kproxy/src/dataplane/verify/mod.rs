//! What is planned against what the kernel holds, for `kproxy verify` and `kproxy diff`. Reads only.
//!
//! ```text
//! Pins::held ─▶ Held ─┬▶ own       contradictions of the maps among themselves: needs no plan
//!                     ├▶ planned   Services and addresses against plans
//!                     └▶ settings  what the programs are told against what they should be
//! Pins::links ────────▶ hooks      programs against the devices and the cgroup that should have them
//! ```

mod finding;
mod held;
mod hooks;
mod own;
mod planned;
mod runs;
mod settings;

pub(crate) use self::{
    finding::{Finding, Kind},
    held::{Held, HeldSet},
    hooks::{Hooks, hooks},
    own::contradictions,
    planned::{addresses, services},
    settings::{settings, sources},
};
