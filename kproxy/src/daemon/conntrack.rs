//! Sets the kernel's connection tracking once, as kube-proxy does at its start. Whoever changes it later
//! has the last word.
//!
//! As long as the kernel tracks no connections there is nothing to set, and it is looked at again. What
//! cannot be set is a reported problem, and tried again.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::time::sleep;

use super::settings::Conntrack;
use crate::control::Noticeboard;
use crate::model::Problem;
use crate::node::conntrack_limits::{self, ENTRIES_PER_BUCKET, Outcome, Wanted};

/// Time between two tries.
const RETRY: Duration = Duration::from_secs(60);
/// Where its problem is posted.
const ORIGIN: &str = "conntrack";

/// What is still to be set.
pub(super) struct Keeper {
    /// Connections to have room for; 0: as many as there are.
    room: u32,
    missing: Vec<Wanted>,
    /// The table is still to be made large enough.
    table: bool,
    notices: Noticeboard,
}

impl Keeper {
    /// Sets what can be set.
    pub(super) fn start(conntrack: &Conntrack, notices: Noticeboard) -> Self {
        let mut keeper = Self::new(conntrack, notices);
        keeper.set_and_tell();
        keeper
    }

    fn new(conntrack: &Conntrack, notices: Noticeboard) -> Self {
        let room = conntrack_limits::room(conntrack.max_per_core, conntrack.min);
        Self { room, missing: wanted(conntrack, room), table: room > 0, notices }
    }

    /// Tries again until nothing is left to be set.
    pub(super) async fn keep(mut self) {
        while !self.missing.is_empty() || self.table {
            sleep(RETRY).await;
            self.set_and_tell();
        }
    }

    fn set_and_tell(&mut self) {
        let problems = self.set();
        self.notices.post(ORIGIN, problems);
    }

    fn set(&mut self) -> Vec<Problem> {
        let mut failed = Vec::new();
        self.missing.retain(|wanted| match conntrack_limits::set(wanted) {
            Outcome::Set => false,
            Outcome::Absent => true,
            Outcome::Failed { found, error } => {
                let name = format!("net.netfilter.{}", wanted.name);
                failed.push((name, found, wanted.value, error));
                true
            }
        });
        // The table belongs to what it has room for.
        let has_room = self.missing.iter().all(|wanted| !wanted.at_least);
        if self.table && has_room {
            match conntrack_limits::set_table_size(self.room) {
                Outcome::Set => self.table = false,
                Outcome::Absent => {}
                Outcome::Failed { found, error } => {
                    let size = self.room / ENTRIES_PER_BUCKET;
                    failed.push(("nf_conntrack's hashsize".to_owned(), found, size, error));
                }
            }
        }
        let problems = failed.iter().map(|(name, found, value, error)| {
            problem(
                name,
                &format!("is {found} and cannot be set to {value}: {error}"),
                error.kind(),
            )
        });
        problems.collect()
    }
}

/// Sets what can be set now; what is wrong with the rest.
pub(super) fn set_once(conntrack: &Conntrack) -> Vec<Problem> {
    Keeper::new(conntrack, Noticeboard::default()).set()
}

/// What is to be set (0 and "no" leave a setting alone).
fn wanted(conntrack: &Conntrack, room: u32) -> Vec<Wanted> {
    let all = [
        ("nf_conntrack_max", room, true),
        ("nf_conntrack_tcp_timeout_established", conntrack.tcp_established, false),
        ("nf_conntrack_tcp_timeout_close_wait", conntrack.tcp_close_wait, false),
        ("nf_conntrack_tcp_be_liberal", conntrack.tcp_be_liberal.into(), false),
        ("nf_conntrack_udp_timeout", conntrack.udp, false),
        ("nf_conntrack_udp_timeout_stream", conntrack.udp_stream, false),
    ];
    let all = all.map(|(name, value, at_least)| Wanted { name, value, at_least });
    all.into_iter().filter(|wanted| wanted.value != 0).collect()
}

fn problem(name: &str, what: &str, kind: ErrorKind) -> Problem {
    let remedy = match kind {
        ErrorKind::ReadOnlyFilesystem => {
            "mount the node's /proc/sys/net into the container for writing (see deploy/kproxy.yaml), or \
             set it on the node and give the --conntrack-… flag the value 0"
        }
        _ => "set it on the node, and give the --conntrack-… flag the value 0",
    };
    Problem::new(name, format!("{what}; Services are not affected"), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_leaves_a_setting_alone() {
        let none = Conntrack {
            max_per_core: 0,
            min: 131_072,
            tcp_established: 0,
            tcp_close_wait: 0,
            tcp_be_liberal: false,
            udp: 0,
            udp_stream: 0,
        };
        assert_eq!(wanted(&none, 0), []);
        let all = Conntrack {
            tcp_established: 86_400,
            tcp_close_wait: 3_600,
            tcp_be_liberal: true,
            udp: 30,
            udp_stream: 120,
            ..none
        };
        let values: Vec<_> = wanted(&all, 131_072).iter().map(|wanted| wanted.value).collect();
        assert_eq!(values, [131_072, 86_400, 3_600, 1, 30, 120]);
    }
}
