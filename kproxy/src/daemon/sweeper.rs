//! Sweeps the flow table, in step with the control loop and beside it.

use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::netfilter::Need;
use super::shared::SharedDataplane;
use crate::errors::with_causes;
use crate::metrics;
use crate::timing;

/// Shortest time between two sweeps of the flow table: shorter than the shortest idle time.
const PERIOD: Duration = Duration::from_secs(5);

/// What sweeps.
#[derive(Clone)]
pub(super) struct Sweeper {
    pub(super) dataplane: SharedDataplane,
    /// Flows that netfilter masquerades may need the nftables table, also when no more are opened.
    pub(super) table: Need,
    pub(super) counts: metrics::Sweep,
}

impl Sweeper {
    /// Sweeps again and again.
    pub(super) async fn run(self) {
        let mut pause = PERIOD;
        loop {
            tokio::time::sleep(pause).await;
            let start = Instant::now();
            self.sweep();
            pause = PERIOD.max(timing::rest_after(start.elapsed()));
        }
    }

    /// Sweeps once.
    pub(super) fn sweep(&self) {
        let mut dataplane = self.dataplane.lock();
        let start = Instant::now();
        let swept = dataplane.sweep();
        let took = start.elapsed();
        self.table.update(&mut dataplane);
        self.counts.set_usage(&dataplane.usage());
        match swept {
            Ok(report) => {
                self.counts.swept(&report, took);
                if report.removed > 0 {
                    debug!(entries = report.entries, removed = report.removed, "swept flows");
                }
            }
            Err(error) => {
                let error = with_causes(&error);
                warn!(error, "cannot sweep the flow table; trying again");
            }
        }
    }
}
