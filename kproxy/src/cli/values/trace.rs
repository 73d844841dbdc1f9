//! What `kproxy trace` is asked for.

use std::net::IpAddr;
use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use kproxy_common::drop_reason::DropReason;

use super::Target;

/// An address, and perhaps a port of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Endpoint {
    /// The address; a v4-mapped one is the IPv4 address that it stands for.
    pub ip: IpAddr,
    /// The port; `None`: any.
    pub port: Option<u16>,
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(Target::Address { ip, port, protocol: None }) => Ok(Self { ip, port }),
            _ => {
                Err("write an address, with a port if need be, like 10.96.0.10, 10.96.0.10:53 or \
                      [fd00:10:96::a]:53"
                    .to_owned())
            }
        }
    }
}

/// Takes the name of a reason.
pub(crate) fn drop_reason() -> impl TypedValueParser<Value = DropReason> {
    PossibleValuesParser::new(DropReason::ALL.map(DropReason::name)).map(|name| {
        let all = DropReason::ALL.into_iter();
        // What is past the parser is one of them.
        all.clone().find(|reason| reason.name() == name).unwrap_or(DropReason::NoBackend)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_address_with_or_without_a_port() {
        let parse = |text: &str| text.parse::<Endpoint>().map(|at| (at.ip.to_string(), at.port));
        assert_eq!(parse("10.96.0.10"), Ok(("10.96.0.10".into(), None)));
        assert_eq!(parse("[fd00::a]:53"), Ok(("fd00::a".into(), Some(53))));
        for bad in ["", "web", "10.96.0.10:0", "10.96.0.10/udp", "10.96.0"] {
            assert!(parse(bad).is_err_and(|error| error.contains("write an address")), "{bad}");
        }
    }
}
