//! What is kept right while traffic goes on: flows that are over, counts of open connections, sockets
//! of backends that are gone, fragments that came early, and the small maps that follow the node.

pub(super) mod adopt;
pub(super) mod flow_table;
pub(super) mod fragments;
pub(super) mod netns;
pub(super) mod pod_flows;
pub(super) mod sockets;
pub(super) mod sweep;
pub(super) mod sweeper;
pub(super) mod uplinks;

mod flow_filter;
mod recount;
#[cfg(test)]
mod tests;
