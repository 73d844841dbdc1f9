//! Source ports that the programs may give out: those that nobody else on the node takes.
//!
//! The kernel gives out `net.ipv4.ip_local_port_range`, for both families. A NodePort as source port
//! would make the answer to a datagram look like a request.

use std::{fs, io, ops::RangeInclusive};

use crate::model::Problem;

/// The API server's default range of NodePorts (`--service-node-port-range`).
const NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;
/// Ports below take a privilege to bind, and firewalls tell them apart.
const FIRST: u16 = 1024;
/// Fewer ports than this are not worth it: one backend could have no more connections.
const LEAST: u16 = 1024;
const LOCAL_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Ports of that range that the kernel does not give out after all.
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// The largest run of free ports in this network namespace; `None`: none is large enough.
///
/// # Errors
/// The kernel's range cannot be read.
pub(crate) fn free() -> io::Result<Option<RangeInclusive<u16>>> {
    Ok(largest_gap(&[local_range()?, NODE_PORTS]))
}

/// Ports that the kernel gives out to the node's own sockets.
fn local_range() -> io::Result<RangeInclusive<u16>> {
    let text = fs::read_to_string(LOCAL_RANGE)?;
    let mut numbers = text.split_whitespace().map(str::parse::<u16>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(low)), Some(Ok(high))) => Ok(low..=high),
        _ => Err(io::Error::other(format!("{LOCAL_RANGE} holds {text:?}"))),
    }
}

/// What to say of `ports` that the kernel gives out as well.
///
/// # Errors
/// The kernel's range cannot be read.
pub(crate) fn overlap(ports: &RangeInclusive<u16>) -> io::Result<Option<Problem>> {
    Ok(given_out(ports)?.map(|local| {
        let (first, last) = (ports.start(), ports.end());
        Problem::new(
            format!("source ports {first}-{last}"),
            format!(
                "net.ipv4.ip_local_port_range gives {}-{} to sockets of the node, some of them the \
                 same: where both meet at one backend, one of the two connections fails",
                local.start(),
                local.end()
            ),
            "name other ports with --snat-ports, or put them into net.ipv4.ip_local_reserved_ports",
        )
    }))
}

/// What to say of NodePorts that the kernel gives out to clients of the node.
///
/// # Errors
/// The kernel's range cannot be read.
pub(crate) fn node_ports_given_out() -> io::Result<Option<Problem>> {
    Ok(given_out(&NODE_PORTS)?.map(|local| {
        let (low, high) = (local.start(), local.end());
        let what = format!(
            "net.ipv4.ip_local_port_range gives {low}-{high} to clients of this node, NodePorts among them: one that \
             has such a port when a Service gets it keeps it, and who listens there is hidden"
        );
        let remedy = "put 30000-32767 into net.ipv4.ip_local_reserved_ports, or make the range begin behind it";
        Problem::new("NodePorts", what, remedy)
    }))
}

/// The kernel's range, if it gives out one of these ports.
fn given_out(ports: &RangeInclusive<u16>) -> io::Result<Option<RangeInclusive<u16>>> {
    let local = local_range()?;
    let reserved = parse_ranges(&fs::read_to_string(RESERVED).unwrap_or_default());
    Ok(shared_with(ports, &local, &reserved).then_some(local))
}

/// Whether one of the ports is in the `local` range and not in a reserved one.
fn shared_with(
    ports: &RangeInclusive<u16>,
    local: &RangeInclusive<u16>,
    reserved: &[RangeInclusive<u16>],
) -> bool {
    let mut both = *ports.start().max(local.start())..=*ports.end().min(local.end());
    both.any(|port| !reserved.iter().any(|range| range.contains(&port)))
}

/// `8080,9148-9150`, as Documentation/networking/ip-sysctl.rst has it; what is no range is passed over.
fn parse_ranges(text: &str) -> Vec<RangeInclusive<u16>> {
    let range = |word: &str| {
        let (low, high) = word.split_once('-').unwrap_or((word, word));
        Some(low.parse().ok()?..=high.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).collect()
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
    fn ports_that_the_kernel_gives_out_too_are_an_overlap_unless_they_are_reserved() {
        for (local, reserved, shared) in [
            (32_768..=60_999, "\n", false),
            (29_999..=60_999, "", true),
            (20_000..=60_999, "1-1000,20000-29999", false),
            (20_000..=60_999, "20000-29998", true),
            (29_999..=60_999, "8080,29999", false),
            (500..=700, "", false),
        ] {
            let reserved = parse_ranges(reserved);
            assert_eq!(shared_with(&(1024..=29_999), &local, &reserved), shared, "{local:?}");
        }
        assert_eq!(parse_ranges("x,7-,9"), [9..=9]);
    }

    #[test]
    fn the_range_of_this_machine_can_be_read() {
        free().unwrap();
        overlap(&(1024..=29_999)).unwrap();
    }
}
