//! Who changes the source of connections to backends elsewhere.

use kproxy_common::config::{Config, config_flags};
use serde::Serialize;

use crate::node::nft;

/// Who changes the source of connections to backends elsewhere: the programs where they have
/// ports, netfilter elsewhere.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct SourceNat {
    /// Source ports that the programs give out (`LOW-HIGH`); `None`: they change no source.
    pub ports: Option<String>,
    /// Netfilter masquerades what the programs cannot change.
    pub netfilter: bool,
    /// Whether the nftables table that does it is there; `None` if it is not needed or `nft` could
    /// not tell.
    pub nftables_table: Option<bool>,
}

impl SourceNat {
    pub(super) fn of(config: &Config) -> Self {
        let (first, count) = (config.snat_first, config.snat_count);
        let netfilter = config.flags & config_flags::NETFILTER != 0;
        Self {
            ports: (count != 0).then(|| format!("{first}-{}", first.saturating_add(count - 1))),
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

    /// Whether connections stay without an answer.
    pub(super) fn is_broken(&self) -> bool {
        self.netfilter && self.nftables_table == Some(false)
    }
}
