//! An event with names in place of numbers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::cli::values::ServiceFilter;
use crate::dataplane::listen::EventRow;
use crate::dataplane::read::{Pins, ReadError, name_opt};
use crate::model::Family;
use crate::node::{device, namespaces};
use crate::plan::{Protocol, ServicePortId};

/// The shortest time between two looks at what has names: each reads a map, or all network namespaces.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// An event as it is printed, and as JSON has it.
#[derive(Debug, Serialize)]
pub(crate) struct Told {
    /// When, of the wall clock.
    pub time: Timestamp,
    /// The CPU.
    pub cpu: u32,
    /// Where it was decided.
    pub hook: &'static str,
    /// `translated`, `refused` or `dropped`.
    pub verdict: &'static str,
    /// Why, of what is refused or dropped.
    pub reason: Option<&'static str>,
    /// `IPv4` or `IPv6`.
    pub family: &'static str,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Option<&'static str>,
    /// Address of who sends; of a socket that is not bound, that of its pod.
    pub source: Option<IpAddr>,
    /// Its port.
    pub source_port: Option<u16>,
    /// What is dialled.
    pub frontend: SocketAddr,
    /// The backend that is given.
    pub backend: Option<SocketAddr>,
    /// The service port.
    #[serde(serialize_with = "name_opt")]
    pub service: Option<ServicePortId>,
    /// The packet's device.
    pub device: Option<String>,
    /// The process that calls.
    pub pid: Option<u32>,
    /// Its name.
    pub process: Option<String>,
}

/// A Service: its service ports by number, and its addresses, whose other ports belong to nobody.
#[derive(Debug, Default)]
pub(crate) struct OfService {
    pub(crate) ids: BTreeSet<u32>,
    pub(crate) addresses: BTreeSet<IpAddr>,
}

/// A pod: its addresses, and the cookies of the network namespaces that have them.
#[derive(Debug, Default)]
pub(crate) struct Pod {
    pub(crate) addresses: BTreeSet<IpAddr>,
    pub(crate) netns: BTreeSet<u64>,
}

/// The names of what events have numbers for.
pub(crate) struct Names {
    pins: Pins,
    services: BTreeMap<u32, ServicePortId>,
    /// Addresses by cookie of the network namespace; none: it is the node's, or gone.
    inhabitants: HashMap<u64, BTreeSet<IpAddr>>,
    looked: [Option<Instant>; 2],
    /// What the wall clock was when CLOCK_MONOTONIC began.
    began: Timestamp,
}

impl Names {
    /// Those of the Services.
    ///
    /// # Errors
    /// The map cannot be read.
    pub(crate) fn new(pins: Pins) -> Result<Self, ReadError> {
        let services = pins.names()?;
        let up = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        let began = SystemTime::now().checked_sub(up).unwrap_or(SystemTime::UNIX_EPOCH);
        let began = Timestamp::try_from(began).unwrap_or(Timestamp::UNIX_EPOCH);
        Ok(Self { pins, services, inhabitants: HashMap::new(), looked: [None; 2], began })
    }

    /// All service ports.
    pub(crate) fn all(&self) -> impl Iterator<Item = &ServicePortId> {
        self.services.values()
    }

    /// The service ports that are meant, and their addresses.
    ///
    /// # Errors
    /// The map cannot be read.
    pub(crate) fn of_service(&self, filter: &ServiceFilter) -> Result<OfService, ReadError> {
        let named = self.services.iter().filter(|(_, id)| filter.matches(id));
        let ids: BTreeSet<u32> = named.map(|(id, _)| *id).collect();
        let frontends = self.pins.frontends()?;
        let own = frontends.iter().filter(|row| ids.contains(&row.id));
        let addresses = own.map(|row| row.addr).filter(|addr| !addr.is_unspecified()).collect();
        Ok(OfService { ids, addresses })
    }

    /// The pod with this address: all that it has, and its network namespaces.
    pub(crate) fn pod(&mut self, ip: IpAddr) -> Pod {
        self.look_at_namespaces();
        let mut pod = Pod { addresses: [ip].into(), netns: BTreeSet::new() };
        for (cookie, addresses) in &self.inhabitants {
            if addresses.contains(&ip) {
                pod.netns.insert(*cookie);
                // Every pod has the same loopback addresses.
                pod.addresses.extend(addresses.iter().filter(|addr| !addr.is_loopback()));
            }
        }
        pod
    }

    /// Puts names to an event.
    pub(crate) fn told(&mut self, row: EventRow) -> Told {
        let ip = row.frontend.ip();
        let family = Family::of(&ip);
        let source = row.source.or_else(|| self.address_in(row.netns?, family));
        Told {
            time: self.began.checked_add(Duration::from_nanos(row.time)).unwrap_or(self.began),
            cpu: row.cpu,
            hook: row.hook.name(),
            verdict: row.outcome.name(),
            reason: row.reason.map(|reason| reason.name()),
            family: if family == Family::V4 { "IPv4" } else { "IPv6" },
            protocol: row.protocol.map(Protocol::name),
            source,
            source_port: row.source_port,
            frontend: row.frontend,
            backend: row.backend,
            service: row.id.and_then(|id| self.service(id)),
            device: row
                .device
                .map(|index| device::name_of(index).unwrap_or_else(|| index.to_string())),
            pid: row.pid,
            process: row.comm,
        }
    }

    fn service(&mut self, id: u32) -> Option<ServicePortId> {
        if !self.services.contains_key(&id)
            && self.may_look(0)
            && let Ok(services) = self.pins.names()
        {
            self.services = services;
        }
        self.services.get(&id).cloned()
    }

    /// The address of this family in a network namespace.
    fn address_in(&mut self, netns: u64, family: Family) -> Option<IpAddr> {
        if !self.inhabitants.contains_key(&netns) && self.may_look(1) {
            self.look_at_namespaces();
            self.inhabitants.entry(netns).or_default();
        }
        let addresses = self.inhabitants.get(&netns)?.iter();
        addresses.copied().find(|ip| !ip.is_loopback() && Family::of(ip) == family)
    }

    fn look_at_namespaces(&mut self) {
        // The thread ends in another namespace than this one.
        let found = thread::spawn(namespaces::inhabitants).join().unwrap_or_default();
        self.inhabitants = found.addresses.into_iter().collect();
    }

    /// Whether the last look at one of the two is long enough ago.
    fn may_look(&mut self, which: usize) -> bool {
        let may = self.looked[which].is_none_or(|looked| looked.elapsed() >= LOOK_AGAIN);
        if may {
            self.looked[which] = Some(Instant::now());
        }
        may
    }
}
