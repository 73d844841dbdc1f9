//! What an address leads to.

use std::net::IpAddr;

use kproxy_common::filter;
use kproxy_common::service::frontend_flags as kind;

use super::cases::{Ends, Frontend, NODE, ip};
use super::plain::Model;

/// What a dialled address, port and protocol leads to.
pub(super) enum Dialled<'a> {
    Frontend(u32, &'a Frontend),
    UnknownPort,
    Nothing,
}

pub(super) fn holds(base: &str, len: u8, addr: &IpAddr) -> bool {
    ipnet::IpNet::new(ip(base), len).unwrap().contains(addr)
}

impl Model {
    pub(super) fn lookup(&self, ends: Ends) -> Dialled<'_> {
        let v6 = ends.to.is_ipv6();
        let on_node = ends.to.ip() == ip(NODE[usize::from(v6)]);
        let mut is_cluster_ip = false;
        for (i, service_port) in self.case.service_ports.iter().enumerate() {
            for frontend in service_port.frontends.iter().filter(|_| service_port.v6 == v6) {
                let addr_matches = frontend.at.ip() == ends.to.ip()
                    || on_node && frontend.at.ip().is_unspecified();
                let rest = (frontend.at.port(), service_port.proto);
                if addr_matches && rest == (ends.to.port(), ends.proto) {
                    return Dialled::Frontend(i as u32, frontend);
                }
                is_cluster_ip |=
                    frontend.flags & kind::CLUSTER_IP != 0 && frontend.at.ip() == ends.to.ip();
            }
        }
        if is_cluster_ip { Dialled::UnknownPort } else { Dialled::Nothing }
    }

    /// The address filter is exact but for addresses that share a bit.
    pub(super) fn is_ruled_out(&self, addr: &IpAddr) -> bool {
        let bit = |addr: IpAddr| filter::bit(&addr.into());
        let frontends =
            self.case.service_ports.iter().flat_map(|service_port| &service_port.frontends);
        let known = frontends.map(|frontend| frontend.at.ip()).chain(NODE.map(ip));
        !known.map(bit).any(|known| known == bit(*addr))
    }

    pub(super) fn is_allowed(
        &self,
        service_port: u32,
        frontend: &Frontend,
        source: &IpAddr,
    ) -> bool {
        let ranges = &self.case.service_ports[service_port as usize].ranges;
        frontend.flags & kind::SOURCE_RANGES == 0
            || ranges.iter().any(|(base, len)| holds(base, *len, source))
    }
}
