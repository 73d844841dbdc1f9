//! The map of network namespaces that the socket path serves or leaves alone.

use std::{collections::BTreeMap, io};

use aya::maps::{HashMap, MapData};
use kproxy_common::{abi::map, netns::netns_verdict};

use super::{exact, sys};
use crate::{
    model::Problem,
    plan::{SocketVerdict, SocketVerdicts},
};

pub(super) type Netns = HashMap<MapData, u64, u32>;

/// What the map holds. Values that kproxy never writes count as nothing.
pub(super) fn read(netns: &Netns) -> io::Result<SocketVerdicts> {
    let verdict = |number| match number {
        netns_verdict::SERVED => Some(SocketVerdict::Served),
        netns_verdict::OPTED_OUT => Some(SocketVerdict::OptedOut),
        netns_verdict::UNDECIDED => Some(SocketVerdict::Undecided),
        _ => None,
    };
    let all = sys::read_hash(netns)?;
    Ok(all.into_iter().filter_map(|(cookie, number)| Some((cookie, verdict(number)?))).collect())
}

/// Makes the map hold exactly `wanted`.
pub(super) fn set(netns: &mut Netns, wanted: &SocketVerdicts) -> Option<Problem> {
    let number = |verdict: &SocketVerdict| match verdict {
        SocketVerdict::Served => netns_verdict::SERVED,
        SocketVerdict::OptedOut => netns_verdict::OPTED_OUT,
        SocketVerdict::Undecided => netns_verdict::UNDECIDED,
    };
    let wanted: BTreeMap<u64, u32> =
        wanted.iter().map(|(cookie, verdict)| (*cookie, number(verdict))).collect();
    let (count, error) = match exact::set(netns, &wanted) {
        Ok(failed) => (failed.len(), failed.into_iter().next()?.1.to_string()),
        Err(error) => (wanted.len(), error.to_string()),
    };
    Some(Problem::new(
        format!("map {}", map::NETNS),
        format!("{count} network namespaces cannot be entered into it: {error}"),
        "their pods are served by packets where kproxy does not know them yet; restart kproxy",
    ))
}
