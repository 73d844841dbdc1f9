//! The Services that the cases dial.

use std::net::SocketAddr;

use crate::stage::at;

/// A Service of type NodePort, TCP and UDP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Web {
    /// A pod on either node.
    Both,
    /// A pod on the first node; clients outside reach it there only.
    Local,
    /// A pod on the second node.
    Far,
    /// The virtual machine on the first node.
    Machine,
    /// No pod.
    Nobody,
}

impl Web {
    pub(crate) const ALL: [Self; 5] =
        [Self::Both, Self::Local, Self::Far, Self::Machine, Self::Nobody];
    /// Port of the ClusterIPs.
    pub(crate) const PORT: u16 = 80;

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Local => "local",
            Self::Far => "far",
            Self::Machine => "machine",
            Self::Nobody => "nobody",
        }
    }

    pub(crate) const fn cluster_ips(self) -> [&'static str; 2] {
        match self {
            Self::Both => ["10.96.0.10", "fd00:10:96::10"],
            Self::Local => ["10.96.0.11", "fd00:10:96::11"],
            Self::Far => ["10.96.0.12", "fd00:10:96::12"],
            Self::Nobody => ["10.96.0.13", "fd00:10:96::13"],
            Self::Machine => ["10.96.0.14", "fd00:10:96::14"],
        }
    }

    pub(crate) const fn node_port(self) -> u16 {
        match self {
            Self::Both => 30_080,
            Self::Local => 30_081,
            Self::Far => 30_082,
            Self::Nobody => 30_083,
            Self::Machine => 30_084,
        }
    }

    /// The pods behind it.
    pub(crate) const fn pods(self) -> &'static [&'static str] {
        match self {
            Self::Both => &["n1/a", "n2/a"],
            Self::Local => &["n1/a"],
            Self::Far => &["n2/a"],
            Self::Machine => &["n1/vm"],
            Self::Nobody => &[],
        }
    }

    /// Its ClusterIP frontends.
    pub(crate) fn vips(self) -> [SocketAddr; 2] {
        self.cluster_ips().map(|ip| at(ip.parse::<std::net::IpAddr>().unwrap(), Self::PORT))
    }
}
