//! Timeouts of the kernel's connection tracking: an administrator who has tuned them expects that all
//! connections of the node follow.

use std::{fs, io, path::Path};

use kproxy_common::flow::{FlowState, flow_state};

/// Where the settings of this network namespace are; there is no such folder as long as nothing on the
/// node tracks connections.
pub(super) const FOLDER: &str = "/proc/sys/net/netfilter";

/// Name of the setting that a state follows, without the folder's.
pub(crate) const fn setting(state: FlowState) -> &'static str {
    match state.number() {
        flow_state::OPENING | flow_state::CROSSED => "nf_conntrack_tcp_timeout_syn_sent",
        flow_state::RECEIVED => "nf_conntrack_tcp_timeout_syn_recv",
        flow_state::ESTABLISHED => "nf_conntrack_tcp_timeout_established",
        flow_state::FIN_WAIT => "nf_conntrack_tcp_timeout_fin_wait",
        flow_state::CLOSE_WAIT => "nf_conntrack_tcp_timeout_close_wait",
        flow_state::LAST_ACK => "nf_conntrack_tcp_timeout_last_ack",
        flow_state::TIME_WAIT => "nf_conntrack_tcp_timeout_time_wait",
        flow_state::RESET => "nf_conntrack_tcp_timeout_close",
        flow_state::STREAM => "nf_conntrack_udp_timeout_stream",
        _ => "nf_conntrack_udp_timeout",
    }
}

/// What the kernel has where nobody has tuned it and kube-proxy sets another time
/// (net/netfilter/nf_conntrack_proto_tcp.c).
const fn untuned(state: FlowState) -> Option<u32> {
    match state.number() {
        flow_state::ESTABLISHED => Some(432_000),
        flow_state::CLOSE_WAIT => Some(60),
        _ => None,
    }
}

/// Seconds without a packet in this state, as the node has it set; `None`: it has not.
pub(crate) fn timeout(state: FlowState) -> Option<u32> {
    read(Path::new(FOLDER), state)
}

fn read(folder: &Path, state: FlowState) -> Option<u32> {
    let path = folder.join(setting(state));
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::debug!(path = %path.display(), %error, "cannot read a timeout");
            }
            return None;
        }
    };
    // Times beyond half of the clock's range would be taken for none.
    let seconds = text.trim().parse::<u32>().ok()?.clamp(1, u32::MAX / 2);
    Some(seconds).filter(|seconds| untuned(state) != Some(*seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_node_are_read_unless_nobody_has_tuned_them() {
        let folder = tempfile::tempdir().unwrap();
        let states: Vec<FlowState> = FlowState::all().collect();
        let all = || -> Vec<u32> {
            states.iter().filter_map(|state| read(folder.path(), *state)).collect()
        };
        assert!(all().is_empty());
        for (name, text) in [
            ("tcp_timeout_syn_sent", "7\n"),
            ("tcp_timeout_syn_recv", "x"),
            ("tcp_timeout_established", "432000\n"),
            ("tcp_timeout_fin_wait", "0\n"),
            ("tcp_timeout_close_wait", "60\n"),
            ("tcp_timeout_last_ack", "4294967295\n"),
            ("tcp_timeout_time_wait", "-1\n"),
            ("tcp_timeout_close", "11\n"),
            ("udp_timeout", "31\n"),
            ("udp_timeout_stream", "121\n"),
        ] {
            fs::write(folder.path().join(format!("nf_conntrack_{name}")), text).unwrap();
        }
        // Opening and crossed, fin-wait, last-ack, reset, unreplied and replied, stream.
        assert_eq!(all(), [7, 7, 1, u32::MAX / 2, 11, 31, 31, 121]);
        for name in ["established", "close_wait"] {
            let path = folder.path().join(format!("nf_conntrack_tcp_timeout_{name}"));
            fs::write(path, "86401").unwrap();
        }
        assert_eq!(all().iter().filter(|seconds| **seconds == 86_401).count(), 2);
    }
}
