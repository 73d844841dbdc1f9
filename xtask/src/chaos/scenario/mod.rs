//! The attacks, one file each.

mod half_open;
mod ports;
mod spoof;
mod syn;
mod table;
mod udp;

use std::fmt;

use anyhow::Result;
use kproxy_lab::Family;

use super::{
    report::Row,
    stage::{Daemon, Effort, FAR, NEAR, Target, UDP},
};

/// An attack.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(super) enum Scenario {
    /// SYNs from random sources, as many as the machine can send.
    Syn,
    /// 45,000 SYNs, then honest clients.
    HalfOpen,
    /// Datagrams from random sources.
    Udp,
    /// RST, FIN, SYN and ACK forged on idle connections.
    Spoof,
    /// Short connections with a flow table that is too small for them.
    Table,
    /// Short and half-open connections with few source ports.
    Ports,
}

/// What is attacked.
#[derive(Clone, Copy)]
pub(super) struct Case {
    name: &'static str,
    target: &'static Target,
    family: Family,
}

const FAR_V4: Case = Case { name: "backend elsewhere, IPv4", target: &FAR, family: Family::V4 };
const FAR_V6: Case = Case { name: "backend elsewhere, IPv6", target: &FAR, family: Family::V6 };
const NEAR_V4: Case = Case { name: "backend on the node, IPv4", target: &NEAR, family: Family::V4 };
const UDP_V4: Case =
    Case { name: "backends on both nodes, IPv4", target: &UDP, family: Family::V4 };

impl Scenario {
    /// All of them.
    pub(super) const ALL: [Self; 6] =
        [Self::Syn, Self::HalfOpen, Self::Udp, Self::Spoof, Self::Table, Self::Ports];

    /// What it attacks.
    pub(super) const fn cases(self) -> &'static [Case] {
        match self {
            Self::Syn | Self::Spoof => &[FAR_V4, FAR_V6, NEAR_V4],
            Self::HalfOpen => &[FAR_V4, FAR_V6],
            Self::Udp => &[UDP_V4],
            Self::Table => &[FAR_V4, NEAR_V4],
            Self::Ports => &[FAR_V4],
        }
    }
}

/// Attacks once; what came of it.
///
/// # Errors
/// When the lab cannot be made or a packet cannot be sent.
pub(super) fn run(scenario: Scenario, case: Case, daemon: Daemon, effort: Effort) -> Result<Row> {
    let Case { target, family, .. } = case;
    let row = match scenario {
        Scenario::Syn => syn::run(target, family, daemon, effort),
        Scenario::HalfOpen => half_open::run(target, family, daemon, effort),
        Scenario::Udp => udp::run(target, family, daemon, effort),
        Scenario::Spoof => spoof::run(target, family, daemon),
        Scenario::Table => table::run(target, family, daemon, effort),
        Scenario::Ports => ports::run(target, family, daemon, effort),
    }?;
    let (scenario, case, daemon) = (scenario.to_string(), case.to_string(), daemon.to_string());
    Ok(Row { scenario, case, daemon, ..row })
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Syn => "syn",
            Self::HalfOpen => "half-open",
            Self::Udp => "udp",
            Self::Spoof => "spoof",
            Self::Table => "table",
            Self::Ports => "ports",
        })
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}
