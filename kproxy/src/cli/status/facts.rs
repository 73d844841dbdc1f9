//! What is known of kproxy on this node, and what to think of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use kproxy_common::abi::{map, program};
use kproxy_common::drop_reason::DropReason;
use serde::Serialize;

use super::attached::{Cgroup, Device};
use super::opt_out::OptOut;
use super::source_nat::SourceNat;
use super::timeouts::Timeout;
use crate::cli::dump::columns::counter;
use crate::cli::version::Version;
use crate::dataplane::read::{DropRow, UsageRow};
use crate::model::Problem;

/// From this fill on a map is a reason for concern, in percent.
const NEARLY_FULL: f64 = 90.0;

/// What is known of kproxy on this node. The JSON form is promised in `docs/cli.md`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Status {
    /// Whether there is nothing in `reasons`.
    pub in_order: bool,
    /// Why kproxy is not in order, a sentence each.
    pub reasons: Vec<String>,
    /// This binary.
    #[serde(flatten)]
    pub version: Version,
    /// Folder of the pins.
    pub pins: String,
    /// Other layout versions that have programs attached.
    pub other_versions: Vec<u32>,
    /// The daemon.
    pub daemon: Daemon,
    /// Programs of the socket path.
    pub cgroup: Cgroup,
    /// Programs of the packet path, by device.
    pub devices: Vec<Device>,
    /// Whose sockets the socket path leaves alone; `None`: no pod is opted out.
    pub opt_out: Option<OptOut>,
    /// Who changes the source of connections to backends elsewhere.
    pub source_nat: SourceNat,
    /// How long flows are kept, in states where that is not the default.
    pub timeouts: Vec<Timeout>,
    /// Addresses of this node, on which NodePorts answer.
    pub node_addresses: Vec<IpAddr>,
    /// How much is served.
    pub totals: Totals,
    /// How full each map is.
    pub maps: Vec<Fill>,
    /// What was refused or dropped since the maps were made.
    pub drops: Vec<Drops>,
    /// What the daemon could not use or do.
    pub problems: Vec<Problem>,
}

/// The daemon.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Daemon {
    /// Whether it is running.
    pub running: bool,
    /// Its pid.
    pub pid: Option<i32>,
}

/// How much is served.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Totals {
    /// Service ports, one a family.
    pub service_ports: usize,
    /// Frontends.
    pub frontends: usize,
    /// Backends of all cluster-wide sets.
    pub backends: u64,
    /// Connections on the packet path.
    pub flows: usize,
}

/// How full a map is.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Fill {
    /// The map.
    #[serde(flatten)]
    pub usage: UsageRow,
    /// Used of capacity.
    pub percent: f64,
    /// Entries that it grows to at most when it is full; `None`: it keeps its size, as far as is known.
    pub limit: Option<u64>,
}

impl Fill {
    /// With the percentage worked out.
    pub(crate) fn new(usage: UsageRow, limit: Option<u64>) -> Self {
        let percent = percent(usage.used, usage.capacity);
        // One digit: this is read by people and compared with thresholds.
        Self { usage, percent: (percent * 10.0).round() / 10.0, limit }
    }

    /// Entries that fit when it has grown as far as it may.
    fn most(&self) -> u64 {
        self.usage.capacity.max(self.limit.unwrap_or_default())
    }

    /// The address filter never gets full: it only lets more addresses through to the lookup. A
    /// full affinity map is the usual state of one that forgets the oldest client for a new one, and in a
    /// full flow table all give way that are not assured.
    pub(super) fn is_nearly_full(&self) -> bool {
        let may_be_full = [map::FILTER, map::AFFINITY, map::FLOWS].contains(&self.usage.map);
        percent(self.usage.used, self.most()) >= NEARLY_FULL && !may_be_full
    }
}

fn percent(used: u64, of: u64) -> f64 {
    used as f64 * 100.0 / of.max(1) as f64
}

/// Drops of one reason, over all services.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Drops {
    /// Word of the reason.
    pub reason: String,
    /// Packets or calls.
    pub count: u64,
    /// What happened and what to look at.
    pub help: &'static str,
}

impl Drops {
    /// Adds up the drops of all services, in the order of the reasons' numbers.
    pub(crate) fn by_reason(rows: &[DropRow]) -> Vec<Self> {
        let mut sums = BTreeMap::new();
        for row in rows.iter().filter(|row| row.count != 0) {
            let sum = sums.entry(row.reason_number).or_insert_with(|| Self {
                reason: counter::reason(row),
                count: 0,
                help: row.reason.map_or("a reason of a later version", DropReason::help),
            });
            sum.count = sum.count.saturating_add(row.count);
        }
        sums.into_values().collect()
    }
}

impl Status {
    /// Fills in `reasons` and `in_order`.
    pub(crate) fn judge(&mut self) {
        let mut reasons = Vec::new();
        if !self.daemon.running {
            reasons.push(
                "the daemon is not running: Services go on working, changes do not arrive; start \
                 `kproxy run`"
                    .to_owned(),
            );
        }
        if !self.cgroup.missing.is_empty() {
            reasons.push(format!(
                "not attached to a cgroup: {}; Services do not answer pods as they should; \
                 restart kproxy",
                self.cgroup.missing.join(", ")
            ));
        }
        if self.cgroup.unused && !self.cgroup.attached.is_empty() {
            reasons.push(format!(
                "still attached to a cgroup, although with --socket-lb none nothing should be: {}; \
                 restart kproxy",
                self.cgroup.attached.join(", ")
            ));
        }
        if self.cgroup.unused
            && !self.devices.is_empty()
            && !self.devices.iter().any(Device::leads_to_itself)
        {
            reasons.push(format!(
                "not attached to lo: {}; Services do not answer processes of this node by its own \
                 addresses; restart kproxy",
                program::NODE_EGRESS
            ));
        }
        for device in self.devices.iter().filter(|device| !device.missing.is_empty()) {
            reasons.push(format!(
                "not attached to {}: {}; restart kproxy",
                device.name,
                device.missing.join(", ")
            ));
        }
        if self.source_nat.is_broken() && !self.devices.is_empty() {
            reasons.push(
                "the nftables table `inet kproxy` is missing: traffic from outside to backends on \
                 other nodes gets no answer; restart kproxy"
                    .to_owned(),
            );
        }
        reasons.extend(self.source_nat.concern());
        for fill in self.maps.iter().filter(|fill| fill.is_nearly_full()) {
            let UsageRow { map, used, .. } = fill.usage;
            let most = fill.most();
            let option = match map {
                map::FRONTENDS => "; raise --max-frontends",
                map::SERVICES | map::NAMES => "; raise --max-services",
                map::SLOTS => "; raise --max-slots",
                map::ASSURED => "; raise --max-flows",
                map::RANGES => "; raise --max-ranges",
                _ => "",
            };
            reasons.push(format!("map {map} holds {used} of at most {most} entries{option}"));
        }
        if !self.problems.is_empty() {
            let count = self.problems.len();
            let problems = if count == 1 { "problem" } else { "problems" };
            reasons.push(format!("{count} {problems} reported by the daemon"));
        }
        if !self.other_versions.is_empty() {
            let versions: Vec<_> = self.other_versions.iter().map(u32::to_string).collect();
            reasons.push(format!(
                "programs of layout version {} are attached beside those of this one and may answer for \
                 Services that are gone; restart kproxy, which removes them",
                versions.join(", ")
            ));
        }
        self.in_order = reasons.is_empty();
        self.reasons = reasons;
    }
}
