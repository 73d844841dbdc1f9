//! Closes connected UDP sockets of backends that are gone, beside the control loop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tracing::{debug, info};

use super::shared::SharedDataplane;
use crate::control::Noticeboard;
use crate::dataplane::{Closed, SocketCloser};
use crate::metrics;
use crate::model::Problem;
use crate::node::namespaces;
use crate::timing;

/// How long to wait for further changes after the first.
const COLLECT: Duration = Duration::from_millis(50);
/// Where its problems are posted.
const ORIGIN: &str = "UDP sockets";

/// Looks for such sockets whenever `stale` says so.
pub(super) async fn close_stale(
    dataplane: SharedDataplane,
    stale: Arc<Notify>,
    counts: metrics::Sweep,
    notices: Noticeboard,
) {
    let closer = dataplane.lock().socket_closer();
    let closer = match closer {
        Ok(closer) => Arc::new(closer),
        Err(error) => return notices.post(ORIGIN, vec![error.to_problem()]),
    };
    loop {
        stale.notified().await;
        tokio::time::sleep(COLLECT).await;
        let start = Instant::now();
        let Some(closed) = close(Arc::clone(&closer), dataplane.clone()).await else { return };
        let Closed { sockets, namespaces, problem } = closed;
        counts.closed(sockets);
        if sockets > 0 {
            info!(sockets, "closed UDP sockets that were connected to endpoints that have gone");
        }
        debug!(namespaces, "looked for UDP sockets of endpoints that have gone");
        notices.post(ORIGIN, problem.into_iter().chain(unseen()).collect());
        tokio::time::sleep(timing::rest_after(start.elapsed())).await;
    }
}

/// The namespaces that nobody can look into here.
fn unseen() -> Option<Problem> {
    let count = namespaces::unseen();
    (count > 0).then(|| {
        Problem::new(
            "/run/netns",
            format!(
                "{count} names lead to no network namespace here: UDP sockets of those pods that are \
                 connected to an endpoint that has gone are not closed"
            ),
            "`mount --make-shared /run` on the node, and mount /run/netns with HostToContainer (see \
             deploy/private-run.yaml); or restart kproxy, which then sees those of now",
        )
    })
}

async fn close(closer: Arc<SocketCloser>, dataplane: SharedDataplane) -> Option<Closed> {
    let work =
        move || closer.close(&namespaces::others(), |socket| dataplane.lock().may_go_on(socket));
    namespaces::on_own_thread("kproxy-sockets", work).await
}
