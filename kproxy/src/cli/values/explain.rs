//! What `kproxy explain` is asked.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::ServiceFilter;
use crate::plan::Protocol;

/// What is dialled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// `ADDRESS[:PORT][/PROTOCOL]`
    Address {
        /// The address; a v4-mapped one is the IPv4 address that it stands for.
        ip: IpAddr,
        /// The port; `None`: all that the address has.
        port: Option<u16>,
        /// The protocol; `None`: those that are there.
        protocol: Option<Protocol>,
    },
    /// `[NAMESPACE/]SERVICE[:PORT][/PROTOCOL]`
    Service {
        /// Namespace, name and port.
        name: ServiceFilter,
        /// The protocol; `None`: any.
        protocol: Option<Protocol>,
    },
}

const FORMS: &str = "write ADDRESS:PORT or [NAMESPACE/]SERVICE[:PORT], with /tcp, /udp or /sctp behind it if need be, \
                     like 10.96.0.10:53/udp, [fd00:10:96::a]:53 or kube-system/kube-dns:dns";

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rest, protocol) = match text.rsplit_once('/') {
            Some((rest, word)) => (rest, protocol_of(word)),
            None => (text, None),
        };
        let whole = (text, None);
        let with_protocol = protocol.map(|protocol| (rest, Some(protocol)));
        for (text, protocol) in with_protocol.into_iter().chain([whole]) {
            if let Some((ip, port)) = address(text)? {
                return Ok(Self::Address { ip, port, protocol });
            }
        }
        // `a/udp` is the Service `udp` of the namespace `a`.
        let is_suffix = rest.contains(['/', ':']);
        let (name, protocol) = with_protocol.filter(|_| is_suffix).unwrap_or(whole);
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-/:".contains(c);
        if !name.chars().all(is_name) {
            return Err(FORMS.to_owned());
        }
        let name = name.parse().map_err(|_ignored: String| FORMS.to_owned())?;
        Ok(Self::Service { name, protocol })
    }
}

/// The address, and the port if there is one.
fn address(text: &str) -> Result<Option<(IpAddr, Option<u16>)>, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(Some((ip.to_canonical(), None)));
    }
    match text.parse::<SocketAddr>() {
        Ok(at) if at.port() == 0 => {
            Err("port 0 is no port: write a number from 1 to 65535".to_owned())
        }
        Ok(at) => Ok(Some((at.ip().to_canonical(), Some(at.port())))),
        Err(_no_address) => Ok(None),
    }
}

fn protocol_of(word: &str) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
        .into_iter()
        .find(|protocol| protocol.name().eq_ignore_ascii_case(word))
}

/// Who dials.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Who {
    /// A process of this node.
    Node,
    /// Any pod of this node.
    Pod,
    /// Anybody outside.
    Outside,
    /// Whoever has the address.
    Address(IpAddr),
}

impl FromStr for Who {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        match text {
            "node" => Ok(Self::Node),
            "pod" => Ok(Self::Pod),
            "outside" => Ok(Self::Outside),
            _ => bare.parse().map(|ip: IpAddr| Self::Address(ip.to_canonical())).map_err(
                |_ignored: std::net::AddrParseError| {
                    "write node, pod, outside, or the address of a client".to_owned()
                },
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_told_apart() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (text, addr, port, protocol) in [
            ("10.96.0.10:53", "10.96.0.10", Some(53), None),
            ("10.96.0.10:53/udp", "10.96.0.10", Some(53), Some(Protocol::Udp)),
            ("[fd00::a]:53/TCP", "fd00::a", Some(53), Some(Protocol::Tcp)),
            ("fd00::a", "fd00::a", None, None),
            ("10.96.0.10/sctp", "10.96.0.10", None, Some(Protocol::Sctp)),
            ("[::ffff:10.96.0.10]:53", "10.96.0.10", Some(53), None),
        ] {
            let wanted = Target::Address { ip: ip(addr), port, protocol };
            assert_eq!(text.parse(), Ok(wanted), "{text}");
        }
        for (text, namespace, name, port, protocol) in [
            ("web", None, "web", None, None),
            ("shop/web", Some("shop"), "web", None, None),
            ("shop/udp", Some("shop"), "udp", None, None),
            ("shop/web:80/udp", Some("shop"), "web", Some("80"), Some(Protocol::Udp)),
            ("web:http/tcp", None, "web", Some("http"), Some(Protocol::Tcp)),
        ] {
            let Ok(Target::Service { name: found, protocol: of }) = text.parse() else {
                panic!("{text}")
            };
            let found = (found.namespace.as_deref(), found.name.as_str(), found.port.as_deref());
            assert_eq!((found, of), ((namespace, name, port), protocol), "{text}");
        }
        for bad in
            ["", "10.96.0.300:80", "10.96.0.1:0", "10.96.0.1:99999", "a/b/c", ":80", "web:", "é"]
        {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }

    #[test]
    fn senders_are_told_apart() {
        assert_eq!("node".parse(), Ok(Who::Node));
        assert_eq!("[fd00::1]".parse(), Ok(Who::Address("fd00::1".parse().unwrap())));
        assert!("nod".parse::<Who>().is_err());
    }
}
