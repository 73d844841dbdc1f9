//! Programs against the places that should have them.

use std::collections::{BTreeMap, BTreeSet};

use kproxy_common::abi::program;

use super::finding::{Finding, Kind};
use crate::{
    dataplane::{
        programs::place::{Place, Places, Side},
        read::{LinkRow, LinkTarget},
    },
    node::{Device, LOOPBACK},
};

/// What should be attached.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hooks<'a> {
    /// Kernel id of the cgroup whose sockets are served; `None`: no sockets are.
    pub(crate) cgroup: Option<u64>,
    /// Whether the program is wanted that sees sockets close.
    pub(crate) counts_sockets: bool,
    /// Devices that lead to other nodes and to clients.
    pub(crate) uplinks: &'a [Device],
    /// Devices that lead to pods.
    pub(crate) pods: &'a [Device],
    /// Whether those answer, too.
    pub(crate) answers_pods: bool,
    /// Whether the loopback device has a program; where not, it may have one for connections of before.
    pub(crate) loopback: bool,
}

impl Hooks<'_> {
    /// Programs by place: what it is called, and the index of the device.
    fn wanted(&self) -> BTreeMap<(&'static str, Option<u32>), String> {
        let place = |side| move |device: &Device| Place { device: device.clone(), side };
        let mut places: BTreeSet<Place> = self.uplinks.iter().map(place(Side::Uplink)).collect();
        places.extend(self.pods.iter().map(place(Side::Pod)));
        if self.loopback {
            places.insert(Place::loopback());
        }
        let answers_pods = self.answers_pods;
        let of = Places { wanted: &places, answers_pods, answered_pods: answers_pods };
        let device = |place: &Place| {
            let Device { name, index, .. } = place.device.clone();
            of.programs_of(place).map(move |(program, _)| ((program, Some(index)), name.clone()))
        };
        let mut wanted: BTreeMap<_, _> = places.iter().flat_map(device).collect();
        if self.cgroup.is_some() {
            let release = self.counts_sockets.then_some(program::RELEASE);
            let names = program::CGROUP.into_iter().chain(release);
            wanted.extend(names.map(|name| ((name, None), "the cgroup".to_owned())));
        }
        wanted
    }
}

/// What is attached that should not be, and what is missing.
pub(crate) fn hooks(links: &[LinkRow], hooks: &Hooks<'_>) -> Vec<Finding> {
    let wanted = hooks.wanted();
    let mut there = BTreeMap::new();
    let mut findings = Vec::new();
    for link in links {
        let (index, at) = match &link.target {
            LinkTarget::Device { name, index } => (Some(*index), name.clone()),
            LinkTarget::Cgroup { id } if hooks.cgroup.is_none_or(|wanted| wanted == *id) => {
                (None, "the cgroup".to_owned())
            }
            LinkTarget::Cgroup { id } => {
                let kernel = Some(format!("attached to cgroup {id}"));
                let planned = hooks.cgroup.map(|id| format!("attached to cgroup {id}"));
                findings.push(Finding::differs(Kind::Hook, &link.program, planned, kernel));
                continue;
            }
            // What was detached is missing; a device that has gone needs nothing.
            LinkTarget::Gone => continue,
        };
        there.insert((link.program.as_str(), index), at);
    }
    let attached = || Some("attached".to_owned());
    for ((name, _), at) in wanted.iter().filter(|(key, _)| !there.contains_key(*key)) {
        let object = format!("{name} at {at}");
        findings.push(Finding::differs(Kind::Hook, object, attached(), None));
    }
    // Once there, these stay as long as connections may need them.
    let may_stay = |name: &str, index: Option<u32>| {
        name == program::RELEASE || index == Some(LOOPBACK) || name == program::POD_EGRESS
    };
    for ((name, index), at) in there.iter().filter(|(key, _)| !wanted.contains_key(*key)) {
        if !may_stay(name, *index) {
            findings.push(Finding::differs(
                Kind::Hook,
                format!("{name} at {at}"),
                None,
                attached(),
            ));
        }
    }
    findings.sort();
    findings
}
