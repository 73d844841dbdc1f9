//! What is listened to. The programs go by bits, which let some through that is not wanted: that is left out here.

use std::net::IpAddr;

use anyhow::{Result, bail};
use kproxy_common::counters::NO_SERVICE;
use kproxy_common::drop_reason::DropReason;
use kproxy_common::net::Addr;
use kproxy_common::service::cluster_index;
use kproxy_common::trace::{Trace, bit_of_address, bit_of_netns, bit_of_service};

use super::told::{Names, OfService, Pod};
use crate::cli::args::TraceArgs;
use crate::cli::explain::nearest;
use crate::dataplane::listen::{EventRow, Outcome};

/// The conditions: all that are given must hold.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// Only this Service.
    service: Option<OfService>,
    /// Only with this end.
    address: Option<(IpAddr, Option<u16>)>,
    /// Only of this pod.
    pod: Option<Pod>,
    /// Only what is refused or dropped: for one of these reasons; none for any.
    reasons: Option<Vec<DropReason>>,
}

impl Wanted {
    /// From what was typed.
    ///
    /// # Errors
    /// There is no such Service, or a map could not be read.
    pub(crate) fn new(args: &TraceArgs, names: &mut Names) -> Result<Self> {
        let reasons = (args.drops || !args.reason.is_empty()).then(|| args.reason.clone());
        let service = match &args.service {
            Some(filter) => {
                let found = names.of_service(filter)?;
                if found.ids.is_empty() {
                    let typed = filter.to_string();
                    let near = nearest::names(names.all(), &typed);
                    bail!("no Service {typed} in the maps{}", nearest::meant(&near));
                }
                Some(found)
            }
            None => None,
        };
        let address = args.address.map(|at| (at.ip, at.port));
        Ok(Self { service, address, pod: args.pod.map(|ip| names.pod(ip)), reasons })
    }

    /// What the programs are asked for, at most so many events a second of each CPU.
    pub(crate) fn trace(&self, a_second: u32) -> Trace {
        let all = |bits: &mut dyn Iterator<Item = u64>| bits.fold(0, |all, bit| all | bit);
        let services = self.service.as_ref().map_or(!0, |of| {
            let none = Addr::default();
            let ids = of.ids.iter().map(|id| bit_of_service(cluster_index(*id), &none));
            let addresses = of.addresses.iter();
            let addresses = addresses.map(|ip| bit_of_service(NO_SERVICE, &Addr::from(*ip)));
            all(&mut ids.chain(addresses))
        });
        let ends = match (&self.pod, self.address) {
            (Some(pod), _) => {
                let addresses = pod.addresses.iter().map(|ip| bit_of_address(&Addr::from(*ip)));
                all(&mut addresses.chain(pod.netns.iter().map(|cookie| bit_of_netns(*cookie))))
            }
            (None, Some((ip, _))) => bit_of_address(&Addr::from(ip)),
            (None, None) => !0,
        };
        let reasons = match self.reasons.as_deref() {
            None => !0,
            Some([]) => !1,
            Some(some) => all(&mut some.iter().map(|reason| 1 << *reason as u32)),
        };
        Trace { until: 0, reasons, services, ends, a_second, pad: 0 }
    }

    /// Whether the event meets every condition.
    pub(crate) fn shows(&self, row: &EventRow) -> bool {
        let of_service = |of: &OfService| match row.id {
            Some(id) => of.ids.contains(&id),
            None => of.addresses.contains(&row.frontend.ip()),
        };
        let source = row.source.map(|ip| (ip, row.source_port));
        let frontend = (row.frontend.ip(), Some(row.frontend.port()));
        let backend = row.backend.map(|at| (at.ip(), Some(at.port())));
        let mut ends = source.into_iter().chain([frontend]).chain(backend);
        let has_end = |(wanted, port): (IpAddr, Option<u16>)| {
            ends.any(|(ip, of)| ip == wanted && (port.is_none() || port == of))
        };
        let of_pod = |pod: &Pod| {
            row.netns.is_some_and(|netns| pod.netns.contains(&netns))
                || row.source.is_some_and(|ip| pod.addresses.contains(&ip))
                || row.backend.is_some_and(|at| pod.addresses.contains(&at.ip()))
                || pod.addresses.contains(&row.frontend.ip())
        };
        let has_reason = |some: &Vec<DropReason>| {
            row.outcome != Outcome::Translated
                && (some.is_empty() || row.reason.is_some_and(|reason| some.contains(&reason)))
        };
        self.service.as_ref().is_none_or(of_service)
            && self.address.is_none_or(has_end)
            && self.pod.as_ref().is_none_or(of_pod)
            && self.reasons.as_ref().is_none_or(has_reason)
    }
}

#[cfg(test)]
mod tests {
    use kproxy_common::service::local_index;
    use kproxy_common::trace::{Event, outcome};

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Whether such an event is shown, and whether the programs would tell it.
    fn fares(wanted: &Wanted, event: &Event) -> [bool; 2] {
        let ends = [event.source, event.frontend, event.backend].into_iter();
        let ends = ends.fold(bit_of_netns(event.netns), |all, end| all | bit_of_address(&end));
        let service = bit_of_service(event.service, &event.frontend);
        let told = wanted.trace(1).wants(event.what >> 16, service, ends);
        [wanted.shows(&EventRow::from(event)), told]
    }

    #[test]
    fn what_is_wanted_is_told_and_shown() {
        let refused = (DropReason::NoBackend as u32) << 16 | outcome::REFUSED;
        let event = Event {
            netns: 77,
            source: ip("10.244.1.10").into(),
            frontend: ip("10.96.0.10").into(),
            service: local_index(7),
            what: refused,
            ..Event::default()
        };
        let of = |ids: &[u32], addresses: &[&str]| Wanted {
            service: Some(OfService {
                ids: ids.iter().copied().collect(),
                addresses: addresses.iter().map(|text| ip(text)).collect(),
            }),
            ..Wanted::default()
        };
        let pod = |address: &str, netns: u64| Wanted {
            pod: Some(Pod { addresses: [ip(address)].into(), netns: [netns].into() }),
            ..Wanted::default()
        };
        let end = |text: &str| Wanted { address: Some((ip(text), None)), ..Wanted::default() };
        let reasons =
            |some: &[DropReason]| Wanted { reasons: Some(some.to_vec()), ..Wanted::default() };
        let unknown = Event { service: NO_SERVICE, ..event };
        for (wanted, event, shown) in [
            (Wanted::default(), event, true),
            (of(&[7], &["10.96.0.10"]), event, true),
            (of(&[8], &["10.96.0.10"]), event, false),
            (of(&[7], &["10.96.0.10"]), unknown, true),
            (of(&[7], &["10.96.0.11"]), unknown, false),
            (end("10.96.0.10"), event, true),
            (end("10.96.0.11"), event, false),
            (pod("10.244.1.99", 77), event, true),
            (pod("10.244.1.10", 1), event, true),
            (pod("10.244.1.99", 1), event, false),
            (reasons(&[]), event, true),
            (reasons(&[DropReason::NoBackend]), event, true),
            (reasons(&[DropReason::NoRoute]), event, false),
            (reasons(&[]), Event { what: outcome::GIVEN, ..event }, false),
        ] {
            let [is_shown, is_told] = fares(&wanted, &event);
            assert_eq!(is_shown, shown, "{wanted:?} {event:?}");
            assert!(is_told || !shown, "{wanted:?} {event:?}");
        }
        let port =
            |port| Wanted { address: Some((ip("10.96.0.10"), Some(port))), ..Wanted::default() };
        let event = Event { frontend_port: kproxy_common::net::Port::new(80), ..event };
        assert_eq!([port(80), port(81)].map(|wanted| fares(&wanted, &event)[0]), [true, false]);
    }
}
