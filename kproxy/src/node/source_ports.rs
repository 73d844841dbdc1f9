//! Source ports that the programs may give out: those that nobody else on the node takes.
//!
//! The kernel gives out `net.ipv4.ip_local_port_range`, for both families. A NodePort as source port
//! would make the answer to a datagram look like a request.

use std::{fs, io, ops::RangeInclusive};

/// The API server's default range of NodePorts (`--service-node-port-range`).
const NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;
/// Ports below take a privilege to bind, and firewalls tell them apart.
const FIRST: u16 = 1024;
/// Fewer ports than this are not worth it: one backend could have no more connections.
const LEAST: u16 = 1024;
const LOCAL_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// The largest run of free ports in this network namespace; `None`: none is large enough.
///
/// # Errors
/// The kernel's range cannot be read.
pub(crate) fn free() -> io::Result<Option<RangeInclusive<u16>>> {
    let text = fs::read_to_string(LOCAL_RANGE)?;
    let mut numbers = text.split_whitespace().map(str::parse::<u16>);
    let (Some(Ok(low)), Some(Ok(high))) = (numbers.next(), numbers.next()) else {
        return Err(io::Error::other(format!("{LOCAL_RANGE} holds {text:?}")));
    };
    Ok(largest_gap(&[low..=high, NODE_PORTS]))
}

/// The largest run between `taken` ranges.
fn largest_gap(taken: &[RangeInclusive<u16>]) -> Option<RangeInclusive<u16>> {
    let is_free = |port: &u16| !taken.iter().any(|range| range.contains(port));
    let mut best: Option<RangeInclusive<u16>> = None;
    let mut start = None;
    for port in FIRST..=u16::MAX {
        if !is_free(&port) {
            start = None;
            continue;
        }
        let first = *start.get_or_insert(port);
        if best.as_ref().is_none_or(|best| port - first > best.end() - best.start()) {
            best = Some(first..=port);
        }
    }
    best.filter(|best| best.end() - best.start() >= LEAST - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_run_that_nobody_takes_is_chosen() {
        for (local, free) in [
            (32_768..=60_999, Some(1024..=29_999)),
            (1024..=29_999, Some(32_768..=65_535)),
            (1024..=60_999, Some(61_000..=65_535)),
            (1024..=65_000, None),
            (1024..=65_535, None),
        ] {
            assert_eq!(largest_gap(&[local.clone(), NODE_PORTS]), free, "{local:?}");
        }
    }

    #[test]
    fn the_range_of_this_machine_can_be_read() {
        free().unwrap();
    }
}
