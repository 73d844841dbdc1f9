//! Which programs are attached, and which are missing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use kproxy_common::abi::program;
use kproxy_common::config::config_flags;
use serde::Serialize;

use crate::dataplane::read::{LinkRow, LinkTarget};
use crate::node;

/// Programs of the socket path.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Cgroup {
    /// Kernel id of the cgroup; `None` if nothing is attached.
    pub id: Option<u64>,
    /// Its folder; `None` if it lies outside the cgroup file systems that are seen from here.
    pub path: Option<PathBuf>,
    /// Programs attached to it.
    pub attached: Vec<String>,
    /// Programs that should be and are not.
    pub missing: Vec<String>,
    /// No program should be attached (`--socket-lb none`): packets of sockets are translated.
    pub unused: bool,
}

/// Programs of the packet path on one device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Device {
    /// Its name.
    pub name: String,
    /// Its interface index; `None` if it is gone.
    pub index: Option<u32>,
    /// Programs attached to it.
    pub attached: Vec<String>,
    /// Programs that should be and are not.
    pub missing: Vec<String>,
}

impl Device {
    /// Whether it is the node's end of a link to a pod.
    pub(super) fn leads_to_pod(&self) -> bool {
        let is_pods =
            |name: &String| [program::POD_INGRESS, program::POD_EGRESS].contains(&name.as_str());
        self.attached.iter().any(is_pods)
    }

    /// Whether it leads back to this node.
    pub(super) fn leads_to_itself(&self) -> bool {
        self.attached.iter().any(|name| name == program::NODE_EGRESS)
    }
}

/// Sorts links by where they lead. `flags`: those of the programs' settings.
pub(in crate::cli) fn of(links: Vec<LinkRow>, flags: u32) -> (Cgroup, Vec<Device>) {
    let (cgroup, devices) = sorted(links);
    let path = cgroup.id.and_then(node::cgroup::folder);
    let unused = flags & config_flags::NODE_PACKETS != 0;
    let missing = if unused { Vec::new() } else { cgroup.missing };
    (Cgroup { path, missing, unused, ..cgroup }, devices)
}

fn sorted(links: Vec<LinkRow>) -> (Cgroup, Vec<Device>) {
    let mut cgroup = Cgroup::default();
    let mut devices: BTreeMap<String, (Option<u32>, BTreeSet<String>)> = BTreeMap::new();
    for link in links {
        match link.target {
            LinkTarget::Cgroup { id } => {
                cgroup.id = Some(id);
                cgroup.attached.push(link.program);
            }
            LinkTarget::Device { name, index } => {
                let device = devices.entry(name).or_default();
                device.0 = Some(index);
                device.1.insert(link.program);
            }
            // A device that is gone needs no programs; the daemon clears its pins away.
            LinkTarget::Gone => {}
        }
    }
    let is_missing = |name: &&str| !cgroup.attached.iter().any(|have| have == name);
    cgroup.missing =
        program::CGROUP.iter().filter(|p| is_missing(p)).map(|p| (*p).into()).collect();
    // Attached to all pods at once, when it is needed.
    let answered = devices.values().any(|(_, attached)| attached.contains(program::POD_EGRESS));
    let devices = devices.into_iter().map(|(name, (index, attached))| Device {
        name,
        index,
        missing: missing(&attached, answered),
        attached: attached.into_iter().collect(),
    });
    (cgroup, devices.collect())
}

/// What a device with these programs lacks: both directions must be there, and of one kind; a pod's
/// answers only if they are translated anywhere.
fn missing(attached: &BTreeSet<String>, answered: bool) -> Vec<String> {
    let has = |name: &str| attached.contains(name);
    if has(program::NODE_EGRESS) {
        // Answers come in elsewhere.
        return Vec::new();
    }
    let pairs =
        [[program::INGRESS_L3, program::EGRESS_L3], [program::POD_INGRESS, program::POD_EGRESS]];
    let is_of = |pair: &[&str; 2]| pair.iter().any(|name| has(name));
    let both = pairs.into_iter().find(is_of).unwrap_or([program::INGRESS, program::EGRESS]);
    let is_wanted = |name: &&str| answered || *name != program::POD_EGRESS;
    both.into_iter().filter(|name| !has(name)).filter(is_wanted).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(program: &str, target: LinkTarget) -> LinkRow {
        LinkRow { program: program.to_owned(), target, link_id: 1, program_id: 1 }
    }

    fn device(name: &str) -> LinkTarget {
        LinkTarget::Device { name: name.to_owned(), index: 7 }
    }

    #[test]
    fn missing_programs_are_named() {
        let mut links: Vec<_> = program::CGROUP[1..]
            .iter()
            .map(|name| link(name, LinkTarget::Cgroup { id: 5 }))
            .collect();
        links.push(link(program::CGROUP[0], LinkTarget::Gone));
        links.push(link(program::INGRESS, device("eth0")));
        links.push(link(program::EGRESS, device("eth0")));
        links.push(link(program::EGRESS_L3, device("wg0")));
        links.push(link(program::INGRESS, LinkTarget::Gone));
        let (cgroup, devices) = sorted(links);
        assert_eq!((cgroup.id, cgroup.attached.len()), (Some(5), 7));
        assert_eq!(cgroup.missing, [program::CGROUP[0]]);
        let seen: Vec<_> = devices.iter().map(|d| (d.name.as_str(), d.missing.clone())).collect();
        assert_eq!(seen, [("eth0", vec![]), ("wg0", vec![program::INGRESS_L3.to_owned()])]);

        let mut pods = vec![
            link(program::POD_INGRESS, device("cali1")),
            link(program::POD_INGRESS, device("cali2")),
        ];
        let missing = |links| sorted(links).1.iter().map(|d| d.missing.len()).collect::<Vec<_>>();
        assert_eq!(missing(pods.clone()), [0, 0]);
        pods.push(link(program::POD_EGRESS, device("cali2")));
        assert_eq!(missing(pods), [1, 0]);
    }

    #[test]
    fn without_hooks_nothing_is_missing_from_the_cgroup_and_lo_has_one_program() {
        let links = vec![link(program::NODE_EGRESS, device("lo"))];
        for (flags, missing) in [(config_flags::NODE_PACKETS, 0), (0, program::CGROUP.len())] {
            let (cgroup, devices) = of(links.clone(), flags);
            assert_eq!((cgroup.missing.len(), cgroup.unused), (missing, flags != 0));
            assert!(devices[0].leads_to_itself() && devices[0].missing.is_empty());
        }
    }
}
