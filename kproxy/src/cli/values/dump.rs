//! Conditions of `kproxy dump`.

use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::plan::ServicePortId;

/// `[NAMESPACE/]NAME[:PORT]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ServiceFilter {
    /// Namespace; `None`: any.
    pub namespace: Option<String>,
    /// Name of the Service.
    pub name: String,
    /// Name of the port; `None`: any.
    pub port: Option<String>,
}

impl ServiceFilter {
    /// Whether the service port is meant.
    pub(crate) fn matches(&self, id: &ServicePortId) -> bool {
        let same = |want: &Option<String>, have: &str| want.as_deref().is_none_or(|w| w == have);
        self.name == id.name && same(&self.namespace, &id.namespace) && same(&self.port, &id.port)
    }
}

impl Display for ServiceFilter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)?;
        self.port.as_ref().map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl FromStr for ServiceFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (namespace, rest) = match text.split_once('/') {
            Some((namespace, rest)) => (Some(namespace), rest),
            None => (None, text),
        };
        let (name, port) = match rest.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (rest, None),
        };
        let blank = |part: Option<&str>| part.is_some_and(str::is_empty);
        if name.is_empty() || name.contains('/') || blank(namespace) || blank(port) {
            return Err("write NAME, NAMESPACE/NAME or NAMESPACE/NAME:PORT".to_owned());
        }
        Ok(Self {
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
            port: port.map(str::to_owned),
        })
    }
}

/// An address or a range of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AddressFilter(IpNet);

impl AddressFilter {
    /// Whether the range holds `addr`.
    pub(crate) fn contains(&self, addr: &IpAddr) -> bool {
        self.0.contains(addr)
    }
}

impl FromStr for AddressFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Brackets as in a copied `[fd00::1]`.
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        bare.parse::<IpAddr>()
            .map(IpNet::from)
            .or_else(|_no_address| bare.parse())
            .map(Self)
            .map_err(|_ignored: ipnet::AddrParseError| {
                "write an address or a range, like 10.96.0.10, fd00::1 or 10.96.0.0/16".to_owned()
            })
    }
}

/// A port by number or by name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum PortFilter {
    /// Port number.
    Number(u16),
    /// Name of a Service's port.
    Name(String),
}

impl FromStr for PortFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write a port number from 1 to 65535 or the name of a port".to_owned();
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return match text.parse() {
                Ok(number @ 1..) => Ok(Self::Number(number)),
                _ => Err(wrong()),
            };
        }
        // Names of ports are DNS labels (IANA_SVC_NAME, RFC 6335).
        let label = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if text.is_empty() || !text.bytes().all(label) {
            return Err(wrong());
        }
        Ok(Self::Name(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_say_what_they_want() {
        let service: ServiceFilter = "kube-system/kube-dns:dns".parse().unwrap();
        assert_eq!(service.namespace.as_deref(), Some("kube-system"));
        assert_eq!((service.name.as_str(), service.port.as_deref()), ("kube-dns", Some("dns")));
        assert_eq!(service.to_string(), "kube-system/kube-dns:dns");
        for bad in ["", "/web", "a/b/c", "web:", "a/:http"] {
            assert!(bad.parse::<ServiceFilter>().is_err(), "{bad}");
        }
        for good in ["10.96.0.10", "10.96.0.0/16", "fd00::1", "[fd00::1]", "fd00::/64"] {
            assert!(good.parse::<AddressFilter>().is_ok(), "{good}");
        }
        assert!("10.96.0".parse::<AddressFilter>().is_err());
        assert_eq!("53".parse(), Ok(PortFilter::Number(53)));
        assert_eq!("dns-tcp".parse(), Ok(PortFilter::Name("dns-tcp".into())));
        for bad in ["", "0", "65536", "a b"] {
            assert!(bad.parse::<PortFilter>().is_err(), "{bad}");
        }
    }
}
