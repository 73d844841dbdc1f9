//! Who changes the source of connections to backends elsewhere.

use kproxy_common::config::{Config, config_flags};
use serde::Serialize;

use crate::dataplane::{PortPool, PortUse};
use crate::node::nft;

/// Who changes the source of connections to backends elsewhere: the programs where they have
/// ports, netfilter elsewhere.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct SourceNat {
    /// Source ports that the programs give out (`LOW-HIGH`); `None`: they change no source.
    pub ports: Option<String>,
    /// How many of them are taken; `None`: there are none.
    pub pool: Option<PortPool>,
    /// Netfilter masquerades what the programs cannot change.
    pub netfilter: bool,
    /// Whether the nftables table that does it is there; `None` if it is not needed or `nft` could
    /// not tell.
    pub nftables_table: Option<bool>,
}

impl SourceNat {
    pub(super) fn of(config: &Config, pool: Option<PortPool>) -> Self {
        let (first, count) = (config.snat_first, config.snat_count);
        let netfilter = config.flags & config_flags::NETFILTER != 0;
        Self {
            ports: (count != 0).then(|| format!("{first}-{}", first.saturating_add(count - 1))),
            pool,
            netfilter,
            nftables_table: netfilter.then(nft::is_present).and_then(Result::ok),
        }
    }

    /// One line for people.
    pub(super) fn text(&self) -> String {
        let table = match self.nftables_table {
            _ if !self.netfilter => "",
            Some(true) => "by netfilter (table inet kproxy)",
            Some(false) => "by netfilter, but table inet kproxy is missing",
            None => "by netfilter (table inet kproxy not known: `nft list tables` failed)",
        };
        match &self.ports {
            Some(ports) if self.netfilter => format!("by the programs, ports {ports}; {table}"),
            Some(ports) => format!("by the programs, ports {ports}"),
            None => table.to_owned(),
        }
    }

    /// How many ports are taken, for people.
    pub(super) fn pool_text(&self) -> Option<String> {
        let PortPool { size, fullest } = self.pool?;
        let Some(fullest) = fullest else { return Some(format!("none of {size} taken")) };
        let PortUse { used, assured, .. } = fullest;
        let backend = name(&fullest);
        Some(format!("{used} of {size} taken at {backend}, {assured} of them assured"))
    }

    /// What to say of ports that give way to no other connection, once nearly all are held.
    pub(super) fn concern(&self) -> Option<String> {
        let PortPool { size, fullest } = self.pool?;
        let fullest = fullest.filter(|fullest| fullest.is_nearly_held(size))?;
        let (held, backend) = (fullest.assured, name(&fullest));
        Some(format!(
            "connections to {backend} hold {held} of {size} source ports; give more with --snat-ports, \
             or run more endpoints"
        ))
    }

    /// Whether connections stay without an answer.
    pub(super) fn is_broken(&self) -> bool {
        self.netfilter && self.nftables_table == Some(false)
    }
}

/// `10.244.2.9:8080/TCP`
fn name(PortUse { backend, protocol, .. }: &PortUse) -> String {
    format!("{backend}/{}", protocol.unwrap_or("?"))
}
