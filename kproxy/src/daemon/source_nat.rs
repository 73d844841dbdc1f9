//! Who changes the source of connections to backends elsewhere, and to what.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;

use kproxy_common::config::{Config, Uplink, config_flags, uplink_flags};
use kproxy_common::net::Addr;
use tracing::{info, warn};

use super::settings::SourceNat;
use crate::dataplane::{Dataplane, Report};
use crate::model::Problem;
use crate::node::{LOOPBACK, NodeState, Sources, source_ports};

/// Ports that the programs give out.
#[derive(Clone, Debug)]
pub(super) struct SourcePorts {
    setting: SourceNat,
    /// `None`: netfilter does everything.
    ports: Option<RangeInclusive<u16>>,
}

impl SourcePorts {
    /// As set, and where that leaves it open by what the node has.
    pub(super) fn choose(setting: SourceNat) -> io::Result<Self> {
        let chosen = Self { ports: fitting(&setting)?, setting };
        chosen.tell();
        Ok(chosen)
    }

    /// Follows `net.ipv4.ip_local_port_range`: connections that are open keep their ports, new ones get
    /// others. What is wrong with the ports.
    pub(super) fn follow(&mut self) -> Option<Problem> {
        match fitting(&self.setting) {
            Ok(ports) if ports != self.ports => {
                self.ports = ports;
                self.tell();
            }
            Ok(_) => {}
            Err(error) => return Some(unreadable(&error)),
        }
        source_ports::overlap(self.ports.as_ref()?).unwrap_or_else(|error| Some(unreadable(&error)))
    }

    fn tell(&self) {
        match &self.ports {
            Some(ports) => info!(
                "connections to backends elsewhere leave from ports {}-{}",
                ports.start(),
                ports.end()
            ),
            None => {
                if self.setting != SourceNat::Netfilter {
                    warn!(
                        "net.ipv4.ip_local_port_range leaves no 1024 source ports in a row free; \
                         netfilter masquerades instead; make the range smaller or name ports that \
                         nothing else uses with --snat-ports"
                    );
                }
                info!("netfilter masquerades connections to backends elsewhere");
            }
        }
    }

    /// Tells the programs, for the node as it is now.
    pub(super) fn apply(&self, dataplane: &mut Dataplane, node: &NodeState) -> Report {
        let report = dataplane.set_uplinks(&uplinks(node));
        dataplane.change_config(|config| self.fill(config, node));
        report
    }

    pub(super) fn fill(&self, config: &mut Config, node: &NodeState) {
        (config.snat_first, config.snat_count) = match &self.ports {
            // From 1024 on there are fewer than 65,536.
            Some(ports) => (*ports.start(), ports.end() - ports.start() + 1),
            None => (0, 0),
        };
        if self.ports.is_none() || node.needs_masquerade {
            config.flags |= config_flags::NETFILTER;
        } else {
            config.flags &= !config_flags::NETFILTER;
        }
    }
}

/// The ports that a setting asks for, on the node as it is now.
fn fitting(setting: &SourceNat) -> io::Result<Option<RangeInclusive<u16>>> {
    match setting {
        SourceNat::Netfilter => Ok(None),
        SourceNat::Programs { ports: Some(ports) } => Ok(Some(ports.clone())),
        SourceNat::Programs { ports: None } => source_ports::free(),
    }
}

fn unreadable(error: &io::Error) -> Problem {
    Problem::new(
        "source ports",
        format!("net.ipv4.ip_local_port_range cannot be read: {error}"),
        "see that /proc/sys can be read, or name the ports with --snat-ports",
    )
}

/// The source addresses of each uplink.
pub(super) fn uplinks(node: &NodeState) -> BTreeMap<u32, Uplink> {
    let uplink = |sources: &Sources| Uplink {
        v4: sources.v4.map_or_else(Addr::default, |ip| std::net::IpAddr::from(ip).into()),
        v6: sources.v6.map_or_else(Addr::default, |ip| std::net::IpAddr::from(ip).into()),
        flags: if sources.overlay { uplink_flags::OVERLAY } else { 0 },
    };
    let mut uplinks: BTreeMap<u32, Uplink> =
        node.sources.iter().map(|(device, sources)| (*device, uplink(sources))).collect();
    // What pods see of a process of this node that has dialled a loopback address.
    let any = Sources {
        v4: node.sources.values().find_map(|sources| sources.v4),
        v6: node.sources.values().find_map(|sources| sources.v6),
        overlay: false,
    };
    uplinks.insert(LOOPBACK, uplink(&any));
    uplinks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(ports: Option<RangeInclusive<u16>>) -> SourcePorts {
        SourcePorts { setting: SourceNat::Netfilter, ports }
    }

    #[test]
    fn netfilter_is_asked_where_the_programs_cannot_do_it() {
        let [programs, netfilter] = [Some(1024..=29_999), None].map(ports);
        for (choice, needs_masquerade, count, flags) in [
            (&programs, false, 28_976, 0),
            (&programs, true, 28_976, config_flags::NETFILTER),
            (&netfilter, false, 0, config_flags::NETFILTER),
        ] {
            let node = NodeState { needs_masquerade, ..NodeState::default() };
            for before in [0, config_flags::NETFILTER] {
                let mut config = Config { flags: before, ..Config::default() };
                choice.fill(&mut config, &node);
                assert_eq!((config.snat_count, config.flags), (count, flags));
            }
        }
    }

    #[test]
    fn a_loopback_address_is_replaced_by_one_of_an_uplink() {
        let [first, second] = [[192, 0, 2, 1], [198, 51, 100, 1]].map(std::net::Ipv4Addr::from);
        let none = Sources::default();
        let v4 = |ip| Sources { v4: Some(ip), ..none };
        let sources = BTreeMap::from([(2, none), (3, v4(first)), (4, v4(second))]);
        let found = uplinks(&NodeState { sources, ..NodeState::default() });
        assert_eq!(found[&LOOPBACK].v4, std::net::IpAddr::from(first).into());
        assert_eq!(found[&LOOPBACK].v6, Addr::default());
        assert_eq!(found.len(), 4);
    }

    #[test]
    fn every_port_from_1024_on_can_be_given_out() {
        let all = ports(Some(1024..=u16::MAX));
        let mut config = Config::default();
        all.fill(&mut config, &NodeState::default());
        assert_eq!((config.snat_first, config.snat_count), (1024, 64_512));
    }
}
