//! What the programs are told from the settings, once and for all.

use std::net::IpAddr;

use kproxy_common::config::{Config, Range, config_flags};

use super::error::Error;
use super::settings::{ClusterCidrs, SocketLb};
use crate::node::netns;
use crate::plan::OptOut;

/// What they are told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    host_netns: u64,
    cluster: [Range; 2],
    socket_lb: SocketLb,
    opts_out: bool,
}

impl Told {
    /// By the settings, and the network namespace that this runs in.
    ///
    /// # Errors
    /// The kernel does not say which that is.
    pub(super) fn of(
        cluster_cidrs: ClusterCidrs,
        socket_lb: SocketLb,
        opt_out: &OptOut,
    ) -> Result<Self, Error> {
        Ok(Self {
            host_netns: netns::cookie().map_err(Error::Netns)?,
            cluster: ranges(cluster_cidrs),
            socket_lb,
            opts_out: !opt_out.is_empty(),
        })
    }

    /// Tells what may be told before anything is attached.
    pub(super) const fn fill(&self, config: &mut Config) {
        config.host_netns = self.host_netns;
        config.cluster = self.cluster;
        match self.socket_lb {
            SocketLb::All => config.flags &= !config_flags::HOST_SOCKETS,
            SocketLb::Host | SocketLb::None => config.flags |= config_flags::HOST_SOCKETS,
        }
        if !self.opts_out {
            config.flags &= !config_flags::OPT_OUT;
        }
    }

    /// Tells all that counts once everything is attached.
    pub(super) fn fill_attached(&self, config: &mut Config) {
        self.fill(config);
        config.flags &= !config_flags::NODE_PACKETS;
        if self.socket_lb == SocketLb::None {
            config.flags |= config_flags::NODE_PACKETS;
        }
        if self.opts_out {
            config.flags |= config_flags::OPT_OUT;
        }
    }

    /// Whether pods' own packets are translated from the start.
    pub(super) fn answers_pods(&self) -> bool {
        self.socket_lb != SocketLb::All || self.opts_out
    }

    /// Whether sockets are served.
    pub(super) fn serves_sockets(&self) -> bool {
        self.socket_lb != SocketLb::None
    }
}

fn ranges(cidrs: ClusterCidrs) -> [Range; 2] {
    let ClusterCidrs { v4, v6 } = cidrs;
    let v4 = v4.map(|net| Range::new(IpAddr::V4(net.network()), net.prefix_len()));
    let v6 = v6.map(|net| Range::new(IpAddr::V6(net.network()), net.prefix_len()));
    [v4.unwrap_or_default(), v6.unwrap_or_default()]
}
