//! Sweeps the flow table, beside the control loop.

use std::thread;
use std::time::{Duration, Instant};

use nix::time::ClockId;
use tracing::{debug, warn};

use super::kube_proxy::KubeProxy;
use super::netfilter::Need;
use super::shared::SharedDataplane;
use super::timeouts::Timeouts;
use crate::dataplane::FlowSweeper;
use crate::errors::with_causes;
use crate::metrics;
use crate::model::Problem;
use crate::timing;

/// Longest time between two sweeps of a small flow table: shorter than the shortest idle time.
const PERIOD: Duration = Duration::from_secs(5);

/// By how much others go first (nice(2)): a tenth of a CPU is left to it where all have work.
const NICENESS: i32 = 10;

/// What sweeps.
#[derive(Clone)]
pub(super) struct Sweeper {
    pub(super) dataplane: SharedDataplane,
    pub(super) kube_proxy: KubeProxy,
    /// Flows that netfilter masquerades may need the nftables table, also when no more are opened.
    pub(super) table: Need,
    pub(super) counts: metrics::Sweep,
    pub(super) timeouts: Timeouts,
}

impl Sweeper {
    /// Starts a thread of its own, which ends with the daemon: whoever changes Services does not wait
    /// for a look at all flows. Why it does not start, if so.
    pub(super) fn start(self) -> Option<Problem> {
        let flows = match self.dataplane.lock().flow_sweeper() {
            Ok(flows) => flows,
            Err(error) => return Some(problem(&with_causes(&error))),
        };
        let started = thread::Builder::new().name("kproxy-sweeper".into());
        let started = started.spawn(move || self.run(flows));
        started.err().map(|error| problem(&format!("start a thread: {error}")))
    }

    fn run(mut self, mut flows: FlowSweeper) {
        // Of this thread alone. Under a flood there is most to look at, and others need the CPU to answer.
        if let Err(error) = rustix::process::nice(NICENESS) {
            debug!(%error, "the sweeper keeps its priority");
        }
        loop {
            let start = cpu_time();
            if self.timeouts.are_due() {
                self.timeouts.apply(&mut self.dataplane.lock());
            }
            self.sweep(&mut flows);
            self.kube_proxy.follow();
            let rest = timing::rest_after(cpu_time().saturating_sub(start));
            flows.rest(rest.max(PERIOD));
        }
    }

    /// Sweeps once. The data path is asked in between, never held.
    fn sweep(&self, flows: &mut FlowSweeper) {
        let (config, counts_connections) = {
            let dataplane = self.dataplane.lock();
            (dataplane.config(), dataplane.counts_connections())
        };
        let start = Instant::now();
        let has_left = |given| self.dataplane.lock().has_left(given);
        let swept = flows.sweep(&config, counts_connections, has_left);
        let took = start.elapsed();
        let mut dataplane = self.dataplane.lock();
        match swept {
            Ok(report) => {
                dataplane.swept(report);
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
        self.table.update(&mut dataplane);
        self.counts.set_usage(&dataplane.usage());
    }
}

/// What this thread has taken of a CPU.
fn cpu_time() -> Duration {
    ClockId::CLOCK_THREAD_CPUTIME_ID.now().map(Duration::from).unwrap_or_default()
}

fn problem(what: &str) -> Problem {
    Problem::new(
        "flows",
        format!(
            "{what}; those that nobody looks for any more stay in the table until others need room"
        ),
        "report a bug with this message",
    )
}
