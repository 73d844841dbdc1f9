//! Options of `kproxy run`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use ipnet::IpNet;

use crate::daemon::ClusterCidrs;
use crate::plan::Algorithm;

/// Pod ranges: at most one a family.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct ClusterRanges(pub ClusterCidrs);

impl FromStr for ClusterRanges {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut ranges = ClusterCidrs::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let range: IpNet = part.parse().map_err(|_ignored: ipnet::AddrParseError| {
                format!("`{part}` is no address range; write it like 10.244.0.0/16 or fd00::/56")
            })?;
            let again = match range {
                IpNet::V4(v4) => ranges.v4.replace(v4.trunc()).is_some(),
                IpNet::V6(v6) => ranges.v6.replace(v6.trunc()).is_some(),
            };
            if again {
                return Err(format!("`{part}` is the second range of its family; give one each"));
            }
        }
        Ok(Self(ranges))
    }
}

/// Pattern of device names: `*` stands for any text, `?` for any one character.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DeviceGlob(String);

impl DeviceGlob {
    /// The pattern as typed.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DeviceGlob {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The kernel's own rules for names: dev_valid_name, net/core/dev.c; IFNAMSIZ is 16.
        let literal = text.chars().filter(|c| *c != '*').count();
        if text.is_empty() || literal > 15 {
            return Err("a device name has 1 to 15 characters".to_owned());
        }
        match text.chars().find(|c| matches!(c, '/' | ':') || c.is_whitespace()) {
            Some(bad) => Err(format!("no device name holds {bad:?}")),
            None => Ok(Self(text.to_owned())),
        }
    }
}

/// A range of pod addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PodRange(pub IpNet);

impl FromStr for PodRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim().parse::<IpNet>() {
            Ok(range) if range.network().is_loopback() || range.network().is_multicast() => {
                Err(format!("no pod has an address in `{text}`"))
            }
            Ok(range) => Ok(Self(range.trunc())),
            Err(_) => Err(format!(
                "`{text}` is no address range; write it like 10.244.7.0/24 or fd00:10:244:7::/64"
            )),
        }
    }
}

/// Name of a Kubernetes namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NamespaceName(pub String);

impl FromStr for NamespaceName {
    type Err = String;

    /// A DNS label (RFC 1123), as the API server wants it.
    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.trim();
        let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if matches!(name.len(), 1..=63)
            && name.chars().all(is_inner)
            && !name.starts_with('-')
            && !name.ends_with('-')
        {
            return Ok(Self(name.to_owned()));
        }
        Err(format!(
            "`{text}` is no name of a namespace: 1 to 63 lower-case letters, digits and hyphens"
        ))
    }
}

/// Source ports: `LOW-HIGH`, from 1024 on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PortRange(pub RangeInclusive<u16>);

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ports = text.split_once('-').and_then(|(low, high)| {
            let (low, high): (u16, u16) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
            (low >= 1024 && low <= high).then_some(low..=high)
        });
        ports.map(Self).ok_or_else(|| {
            format!("`{text}` is no range of ports from 1024 on; write it like 20000-29999")
        })
    }
}

/// Capacity of a map in entries. Written as a number, or with `Ki` or `Mi` (`512Ki`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MapSize(pub u32);

impl MapSize {
    /// Largest capacity: 64 Mi entries; 1.5 GiB of slots, which are allocated at once.
    pub(crate) const MAX: u32 = 64 << 20;
}

impl FromStr for MapSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (digits, unit) = match text {
            _ if text.ends_with("Ki") => (&text[..text.len() - 2], 1 << 10),
            _ if text.ends_with("Mi") => (&text[..text.len() - 2], 1 << 20),
            _ => (text, 1),
        };
        let size = digits.parse::<u32>().ok().and_then(|number| number.checked_mul(unit));
        match size {
            // Two is what the smallest unit of the service and flow maps needs.
            Some(size @ 2..=Self::MAX) => Ok(Self(size)),
            _ => Err("give a number of entries from 2 to 64Mi, such as 65536, 64Ki or 1Mi".into()),
        }
    }
}

impl fmt::Display for MapSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The names of the algorithms, for clap.
pub(in crate::cli) fn algorithm() -> impl TypedValueParser<Value = Algorithm> {
    PossibleValuesParser::new(Algorithm::ALL.map(Algorithm::name))
        .map(|name| Algorithm::from_name(&name).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn msq_08_one_range_a_family() {
        let ClusterRanges(both) = "10.244.1.2/16, fd00:10:244::/56".parse().unwrap();
        assert_eq!(both.v4.unwrap().to_string(), "10.244.0.0/16");
        assert_eq!(both.v6.unwrap().to_string(), "fd00:10:244::/56");
        assert_eq!("".parse(), Ok(ClusterRanges::default()));
        for bad in ["10.244.0.0", "10.244.0.0/33", "10.0.0.0/8,10.244.0.0/16", "pods"] {
            assert!(bad.parse::<ClusterRanges>().is_err(), "{bad}");
        }
    }

    #[test]
    fn who_is_opted_out_is_a_range_of_pods_or_a_namespace() {
        let range: PodRange = " 10.244.7.9/24".parse().unwrap();
        assert_eq!(range.0.to_string(), "10.244.7.0/24");
        assert!("::/0".parse::<PodRange>().is_ok());
        for bad in ["", "10.244.7.9", "10.244.7.0/33", "127.0.0.0/8", "::1/128", "224.0.0.0/4", "x"]
        {
            assert!(bad.parse::<PodRange>().is_err(), "{bad}");
        }
        assert_eq!("mesh-1".parse(), Ok(NamespaceName("mesh-1".to_owned())));
        for bad in ["", "-a", "a-", "Mesh", "a.b", "a/b", "*", &"a".repeat(64)] {
            assert!(bad.parse::<NamespaceName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_take_numbers_and_binary_units() {
        assert_eq!("65536".parse(), Ok(MapSize(65_536)));
        assert_eq!("512Ki".parse(), Ok(MapSize(524_288)));
        assert_eq!("64Mi".parse(), Ok(MapSize(MapSize::MAX)));
        for bad in ["", "0", "1", "-5", "65Mi", "4294967296", "10k", "Ki", "4194304Ki"] {
            assert!(bad.parse::<MapSize>().is_err(), "{bad}");
        }
    }

    #[test]
    fn source_ports_are_a_range_above_the_privileged_ones() {
        assert_eq!("20000-29999".parse(), Ok(PortRange(20_000..=29_999)));
        assert_eq!("1024-1024".parse(), Ok(PortRange(1024..=1024)));
        for bad in ["", "20000", "1023-2000", "3000-2000", "1024-65536", "a-b"] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn globs_are_device_names() {
        for good in ["eth*", "*", "wg?", "a123456789012345"[..15].as_ref(), "b123456789012*"] {
            assert!(good.parse::<DeviceGlob>().is_ok(), "{good}");
        }
        for bad in ["", "eth/0", "eth 0", "a1234567890123456", "eth0:1"] {
            assert!(bad.parse::<DeviceGlob>().is_err(), "{bad}");
        }
    }
}
