//! Keeps the socket path away from pods that are opted out, beside the control loop.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::{debug, info};

use super::shared::SharedDataplane;
use crate::control::Noticeboard;
use crate::model::Problem;
use crate::node::NodeState;
use crate::node::namespaces::{self, Inhabitants};
use crate::plan::{OptOut, SocketVerdict, SocketVerdicts, socket_verdicts};
use crate::timing;

/// Shortest and longest time between two looks. A pod's address appears in its namespace some time after
/// its link appears on the node, and nobody tells: so the looks follow news closely, then ever less.
const PAUSE: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(10)];
/// The next look is after this part of the time since the last news.
const PART: u32 = 4;
/// Where its problems are posted.
const ORIGIN: &str = "opt-out";

/// The addresses of each Pod that is opted out by its namespace; `None` while they are not known.
pub(super) type Pods = Option<Vec<BTreeSet<IpAddr>>>;

/// Decides about every network namespace of the node, again and again.
pub(super) async fn follow(
    opt_out: OptOut,
    dataplane: SharedDataplane,
    mut node: watch::Receiver<NodeState>,
    mut pods: watch::Receiver<Pods>,
    notices: Noticeboard,
) {
    let mut verdicts = dataplane.lock().socket_verdicts();
    let mut news = Instant::now();
    loop {
        let start = Instant::now();
        let found = namespaces::on_own_thread("kproxy-netns", namespaces::inhabitants).await;
        // The runtime is shutting down.
        let Some(Inhabitants { mut addresses, error }) = found else { return };
        let has_cookies = addresses.remove(&0).is_none();
        let known = pods.borrow_and_update().clone();
        let now = socket_verdicts(&opt_out, known.as_deref(), &addresses, &verdicts);
        let report = dataplane.lock().set_socket_verdicts(&now);
        if now != verdicts {
            let opted_out = count(&now, SocketVerdict::OptedOut);
            let undecided = count(&now, SocketVerdict::Undecided);
            debug!(opted_out, undecided, "network namespaces");
            if opted_out != count(&verdicts, SocketVerdict::OptedOut) {
                info!(namespaces = opted_out, "pods are opted out of the socket path");
            }
            verdicts = now;
        }
        let mut problems = report.problems;
        problems.extend(error.map(|error| unreadable(&error)));
        problems.extend((!has_cookies).then(without_cookies));
        notices.post(ORIGIN, problems);
        let pause = (news.elapsed() / PART).clamp(PAUSE[0], PAUSE[1]);
        tokio::time::sleep(timing::rest_after(start.elapsed())).await;
        tokio::select! {
            () = tokio::time::sleep(pause) => continue,
            changed = node.changed() => if changed.is_err() { return },
            changed = pods.changed() => if changed.is_err() { return },
        }
        node.borrow_and_update();
        news = Instant::now();
    }
}

fn count(verdicts: &SocketVerdicts, wanted: SocketVerdict) -> usize {
    verdicts.values().filter(|verdict| **verdict == wanted).count()
}

/// What follows from not knowing whose a network namespace is.
const FOLLOWS: &str = "the sockets of their pods are left alone, as with --socket-lb host";

fn unreadable(error: &std::io::Error) -> Problem {
    Problem::new(
        "opt-out of the socket path",
        format!("some network namespaces of pods cannot be looked into: {error}; {FOLLOWS}"),
        "grant CAP_SYS_ADMIN and mount /run/netns, or use --socket-lb host",
    )
}

fn without_cookies() -> Problem {
    Problem::new(
        "opt-out of the socket path",
        format!("this kernel does not tell network namespaces apart; {FOLLOWS}"),
        "use Linux 5.14 or newer (SO_NETNS_COOKIE), or --socket-lb host",
    )
}
