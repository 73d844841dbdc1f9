//! Ranges that ClusterIPs are given out from.

use ipnet::IpNet;

/// Name of a ServiceCIDR object.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct ServiceCidrName(pub String);

impl std::fmt::Display for ServiceCidrName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A ServiceCIDR: one range, or one a family. What is dialled in it and is no ClusterIP is dropped
/// instead of sent out into the network (VER-16).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ServiceCidr {
    /// Name.
    pub name: ServiceCidrName,
    /// Its ranges.
    pub ranges: Vec<IpNet>,
}
