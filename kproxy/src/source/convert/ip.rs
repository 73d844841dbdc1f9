//! Lenient addresses (SVC-18).

use std::net::IpAddr;

use ipnet::IpNet;

/// Reads an address as Go's `ParseIPSloppy` does: leading zeros are decimal (`010` is ten) or
/// hexadecimal padding, and a v4-mapped IPv6 address is its IPv4 address.
pub(crate) fn parse_ip(text: &str) -> Option<IpAddr> {
    let ip = text.parse().ok().or_else(|| without_leading_zeros(text).parse().ok());
    ip.map(|ip: IpAddr| ip.to_canonical())
}

/// Reads `address/length`, blanks around it ignored (SVC-10). Bits beyond the length are cleared.
pub(crate) fn parse_cidr(text: &str) -> Option<IpNet> {
    let (address, length) = text.trim().split_once('/')?;
    let net = IpNet::new(parse_ip(address)?, length.parse().ok()?).ok()?;
    Some(net.trunc())
}

fn without_leading_zeros(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for part in text.split_inclusive(['.', ':']) {
        let (digits, separator) = match part.strip_suffix(['.', ':']) {
            Some(digits) => (digits, &part[digits.len()..]),
            None => (part, ""),
        };
        let short = digits.trim_start_matches('0');
        out.push_str(if short.is_empty() && !digits.is_empty() { "0" } else { short });
        out.push_str(separator);
    }
    out
}
