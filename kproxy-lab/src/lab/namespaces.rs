//! Making and connecting the namespaces of a lab.

use std::fs;

use anyhow::{Context as _, Result};

use super::Lab;
use crate::layout::Names;
use crate::wiring::{Script, nodes, rules, settings};
use crate::{cgroup, mounts, netns};

impl Lab {
    /// Lets the client reach ClusterIPs: the router sends them to a node.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn route_services_via(&self, node: &str) -> Result<()> {
        self.ip(Some("router"), &nodes::service_routes(self.node_number(node)?))
    }

    /// Makes a node's nftables rules what they were at first: those of the CNI and the firewall.
    ///
    /// # Errors
    /// When there is no such node, or nft refuses.
    pub fn renew_rules(&self, node: &str) -> Result<()> {
        let Some(rules) = rules::of_node(&self.shape, self.node_number(node)?) else {
            return Ok(());
        };
        self.node(node).run("nft", &[&rules]).map(drop)
    }

    /// Runs `ip` commands in a place, or outside all of them.
    pub(super) fn ip(&self, place: Option<&str>, script: &Script) -> Result<()> {
        self.batch("ip", place, script)
    }

    pub(super) fn batch(&self, program: &str, place: Option<&str>, script: &Script) -> Result<()> {
        let netns = place.map(|place| self.names.netns(place));
        netns::batch(program, netns.as_deref(), script.as_str(), &self.cgroup.join("setup"))
    }

    /// Makes the namespaces and cgroups of places.
    pub(super) fn make_namespaces(&self, places: &[String], forwarding: &[String]) -> Result<()> {
        self.ip(None, &nodes::namespaces(&self.names, places))?;
        for place in places {
            cgroup::make(&self.cgroup.join(Names::place_cgroup(place)))?;
            netns::sysctl(&self.names.netns_path(place), settings::EVERYWHERE)?;
        }
        for place in forwarding {
            netns::sysctl(&self.names.netns_path(place), settings::FORWARDING)?;
        }
        Ok(())
    }

    /// Makes the folders of a node and mounts its BPF file system.
    pub(super) fn make_node_dirs(&self, node: &str) -> Result<()> {
        for dir in [self.bpffs(node), self.run_dir(node)] {
            fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        }
        mounts::bpffs(&self.bpffs(node))
    }
}
