//! What the programs are told against what they should be.

use std::{collections::BTreeMap, net::IpAddr};

use kproxy_common::{
    config::{Config, Range, Uplink, config_flags, uplink_flags},
    flow::FlowState,
    net::Addr,
};

use super::finding::{Finding, Kind};
use crate::node::device;

/// Flags that are settings, by what they stand for. The others follow from what goes on.
const FLAGS: [(u32, &str); 4] = [
    (config_flags::NETFILTER, "masquerade by netfilter"),
    (config_flags::HOST_SOCKETS, "leave the sockets of pods alone"),
    (config_flags::NODE_PACKETS, "translate packets instead of sockets"),
    (config_flags::OPT_OUT, "pods that are opted out"),
];

/// How the settings of the programs differ from `planned`.
pub(crate) fn settings(held: &Config, planned: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut compare = |object: &str, planned: Option<String>, kernel: Option<String>| {
        if planned != kernel {
            findings.push(Finding::differs(Kind::Setting, object, planned, kernel));
        }
    };
    let cookie = |config: &Config| Some(format!("cookie {}", config.host_netns));
    compare("network namespace of the node", cookie(planned), cookie(held));
    let cluster = |config: &Config| ranges(&config.cluster);
    compare("pod ranges (--cluster-cidr)", cluster(planned), cluster(held));
    let service = |config: &Config| ranges(config.service.as_flattened());
    compare("ranges of ClusterIPs", service(planned), service(held));
    compare("source ports (--snat-ports)", ports(planned), ports(held));
    for (flag, name) in FLAGS {
        let is_set = |config: &Config| (config.flags & flag != 0).then(|| "yes".to_owned());
        compare(name, is_set(planned), is_set(held));
    }
    for state in FlowState::all() {
        let seconds = |config: &Config| {
            let seconds = config.timeouts.get(usize::from(state.number()))?;
            Some(format!("{seconds} seconds"))
        };
        let name = format!("time of {} flows", state.name());
        compare(&name, seconds(planned), seconds(held));
    }
    findings
}

fn ports(config: &Config) -> Option<String> {
    let (first, count) = (u32::from(config.snat_first), u32::from(config.snat_count));
    (count > 0).then(|| format!("{first}-{}", first + count - 1))
}

fn ranges(ranges: &[Range]) -> Option<String> {
    let text = |range: &Range| {
        let ones: u32 = range.mask.0.iter().map(|word| word.count_ones()).sum();
        let addr = IpAddr::from(range.base);
        let len = if addr.is_ipv4() { ones.saturating_sub(96) } else { ones };
        format!("{addr}/{len}")
    };
    let set: Vec<_> = ranges.iter().filter(|range| range.is_set()).map(text).collect();
    (!set.is_empty()).then(|| set.join(" "))
}

/// How the source addresses of uplinks differ from `planned`.
pub(crate) fn sources(
    held: &BTreeMap<u32, Uplink>,
    planned: &BTreeMap<u32, Uplink>,
) -> Vec<Finding> {
    let new = held.keys().filter(|index| !planned.contains_key(index));
    let differs = planned.keys().chain(new).filter(|index| planned.get(index) != held.get(index));
    let finding = |index: &u32| {
        let name = device::name_of(*index).unwrap_or_else(|| format!("device {index}"));
        let object = format!("source addresses of {name}");
        let text = |all: &BTreeMap<u32, Uplink>| all.get(index).map(uplink);
        Finding::differs(Kind::Setting, object, text(planned), text(held))
    };
    differs.map(finding).collect()
}

fn uplink(uplink: &Uplink) -> String {
    let set = [uplink.v4, uplink.v6].into_iter().filter(|addr| *addr != Addr::default());
    let mut words: Vec<_> = set.map(|addr| IpAddr::from(addr).to_string()).collect();
    if words.is_empty() {
        words.push("no address".to_owned());
    }
    if uplink.flags & uplink_flags::OVERLAY != 0 {
        words.push("(a tunnel)".to_owned());
    }
    words.join(" ")
}
