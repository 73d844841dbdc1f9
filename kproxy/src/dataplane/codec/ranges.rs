//! Ranges of addresses: of ClusterIPs, and of sources that may dial a frontend.

use std::net::IpAddr;

use ipnet::IpNet;
use kproxy_common::{
    config::{Range, SERVICE_RANGES},
    net::Addr,
    ranges::{self, RangeData},
};

use crate::plan::Family;

/// Ranges of ClusterIPs, as many of each family as fit.
pub(crate) fn encode_service_ranges(ranges: &[IpNet]) -> [[Range; SERVICE_RANGES]; 2] {
    [Family::V4, Family::V6].map(|family| {
        let mut encoded = [Range::default(); SERVICE_RANGES];
        let of_family = ranges.iter().filter(|range| Family::of(&range.addr()) == family);
        for (place, range) in encoded.iter_mut().zip(of_family) {
            *place = Range::new(range.network(), range.prefix_len());
        }
        encoded
    })
}

/// Prefix length and data of a source range of service port `id`.
pub(crate) fn encode_range(id: u32, net: &IpNet) -> (u32, RangeData) {
    let data = RangeData { service_port: id, addr: Addr::from(net.network()) };
    (ranges::prefix_len(&net.network(), net.prefix_len()), data)
}

/// Service port and source range; `None` for what kproxy never writes.
pub(crate) fn decode_range(prefix_len: u32, data: &RangeData) -> Option<(u32, IpNet)> {
    let ip = IpAddr::from(data.addr);
    let len = prefix_len.checked_sub(ranges::prefix_len(&ip, 0))?;
    Some((data.service_port, IpNet::new(ip, u8::try_from(len).ok()?).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_survive_the_round_trip() {
        for text in ["10.244.0.0/16", "0.0.0.0/0", "192.0.2.7/32", "fd00::/8", "::/0", "::1/128"] {
            let net: IpNet = text.parse().unwrap();
            let (prefix_len, data) = encode_range(7, &net);
            assert_eq!(decode_range(prefix_len, &data), Some((7, net)), "{text}");
        }
        let v4 = RangeData { service_port: 7, addr: Addr::from_v4_word(1) };
        assert_eq!(decode_range(ranges::ID_BITS + 8, &v4), None);
        assert_eq!(decode_range(ranges::ADDRESS_BITS + 1, &v4), None);
    }
}
