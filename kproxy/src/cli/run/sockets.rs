//! Closes connected UDP sockets of backends that are gone, beside the control loop.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use tracing::{debug, info};

use super::sink::{lock, tell};
use crate::dataplane::{Closed, Dataplane, SocketCloser};
use crate::metrics;
use crate::model::Problem;
use crate::node::namespaces;
use crate::source::Event;

/// How long to wait for further changes after the first.
const COLLECT: Duration = Duration::from_millis(50);
/// Each look is followed by a pause of so many times its own length, as it visits every pod.
const REST: u32 = 20;

/// Looks for such sockets whenever `stale` says so.
pub(super) async fn close_stale(
    dataplane: Arc<Mutex<Dataplane>>,
    stale: Arc<Notify>,
    counts: metrics::Sweep,
    events: mpsc::Sender<Event>,
) {
    let closer = lock(&dataplane).socket_closer();
    let closer = match closer {
        Ok(closer) => Arc::new(closer),
        Err(error) => return tell(&events, "UDP sockets", vec![error.to_problem()]).await,
    };
    let mut told: Option<Problem> = None;
    loop {
        stale.notified().await;
        tokio::time::sleep(COLLECT).await;
        let start = Instant::now();
        let Some(closed) = close(Arc::clone(&closer), Arc::clone(&dataplane)).await else { return };
        let Closed { sockets, namespaces, problem } = closed;
        counts.closed(sockets);
        if sockets > 0 {
            info!(sockets, "closed UDP sockets that were connected to endpoints that have gone");
        }
        debug!(namespaces, "looked for UDP sockets of endpoints that have gone");
        if problem != told {
            tell(&events, "UDP sockets", problem.clone().into_iter().collect()).await;
            told = problem;
        }
        tokio::time::sleep(start.elapsed() * REST).await;
    }
}

async fn close(closer: Arc<SocketCloser>, dataplane: Arc<Mutex<Dataplane>>) -> Option<Closed> {
    let work =
        move || closer.close(&namespaces::others(), |socket| lock(&dataplane).may_go_on(socket));
    namespaces::on_own_thread("kproxy-sockets", work).await
}
