//! How long flows are kept: as set by the flag, else as the node's conntrack has it, else by default.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kproxy_common::flow::{FlowState, flow_state, state::TIMEOUTS};
use tracing::{info, warn};

use super::run_dir::RunDir;
use super::settings::FlowTimeouts;
use crate::dataplane::Dataplane;
use crate::errors::with_causes;
use crate::node::conntrack;

/// Time between two looks at the node's settings.
const PERIOD: Duration = Duration::from_secs(60);
/// The flag, in lists of where a time comes from.
const FLAG: &str = "--flow-timeouts";

/// Seconds by state, and where those come from that are not the defaults, by the state's name.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Chosen {
    seconds: [u32; flow_state::COUNT as usize],
    from: BTreeMap<String, String>,
}

/// Keeps the programs' times in step with what is set.
#[derive(Clone)]
pub(super) struct Timeouts {
    set: FlowTimeouts,
    run_dir: RunDir,
    /// What the programs were told last, and when.
    told: Option<(Chosen, Instant)>,
}

impl Timeouts {
    pub(super) const fn new(set: FlowTimeouts, run_dir: RunDir) -> Self {
        Self { set, run_dir, told: None }
    }

    /// Whether it is time to look at the node's settings again.
    pub(super) fn are_due(&self) -> bool {
        self.told.as_ref().is_none_or(|(_, when)| when.elapsed() >= PERIOD)
    }

    /// Seconds by state, as they should be now.
    pub(super) fn seconds(&self) -> [u32; flow_state::COUNT as usize] {
        choose(&self.set, conntrack::timeout).seconds
    }

    /// Looks at the node's settings and tells the programs what is new.
    pub(super) fn apply(&mut self, dataplane: &mut Dataplane) {
        let chosen = choose(&self.set, conntrack::timeout);
        let before = self.told.replace((chosen.clone(), Instant::now()));
        if before.as_ref().is_some_and(|(before, _)| *before == chosen) {
            return;
        }
        dataplane.change_config(|config| config.timeouts = chosen.seconds);
        if before.is_some() {
            info!(from = ?chosen.from, "the times that flows are kept for have changed");
        }
        if let Err(error) = self.run_dir.write_timeouts(&chosen.from) {
            warn!(error = with_causes(&error), "kproxy status cannot say where timeouts come from");
        }
    }
}

/// `of_node`: what the node has set.
fn choose(set: &FlowTimeouts, of_node: impl Fn(FlowState) -> Option<u32>) -> Chosen {
    let mut chosen = Chosen { seconds: TIMEOUTS, from: BTreeMap::new() };
    for (state, seconds) in FlowState::all().zip(&mut chosen.seconds) {
        let from_node = || {
            let name = format!("net.netfilter.{}", conntrack::setting(state));
            of_node(state).map(|seconds| (seconds, name))
        };
        let from_flag = set.get(&state).map(|seconds| (*seconds, FLAG.to_owned()));
        let Some((wanted, from)) = from_flag.or_else(from_node) else { continue };
        if wanted != *seconds {
            *seconds = wanted;
            chosen.from.insert(state.name().to_owned(), from);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(number: u8) -> FlowState {
        FlowState::from_number(number).unwrap()
    }

    #[test]
    fn the_flag_comes_before_the_node_and_the_node_before_the_default() {
        let (reset, stream) = (state(flow_state::RESET), state(flow_state::STREAM));
        let of_node = |seconds: u32| move |of: FlowState| (of >= reset).then_some(seconds);
        let none = choose(&FlowTimeouts::new(), |_| None);
        assert_eq!((none.seconds, none.from.len()), (TIMEOUTS, 0));
        let node = choose(&FlowTimeouts::new(), of_node(120));
        assert_eq!(node.seconds[8..], [120; 4]);
        // A stream has 120 seconds by default.
        let names = ["replied", "reset", "unreplied"];
        assert_eq!(node.from.keys().collect::<Vec<_>>(), names);
        assert_eq!(node.from["replied"], "net.netfilter.nf_conntrack_udp_timeout");
        let flag = choose(&FlowTimeouts::from([(reset, 10), (stream, 7)]), of_node(120));
        assert_eq!(flag.seconds[8..], [10, 120, 120, 7]);
        assert_eq!(flag.from["stream"], FLAG);
        assert!(!flag.from.contains_key("reset"), "the default, by the flag");
    }
}
