//! The map of network namespaces that the socket path serves or leaves alone.

use std::collections::BTreeMap;

use kproxy_common::abi::map;

use crate::{
    dataplane::{codec, kernel::hash, maps::Netns},
    errors::with_causes,
    model::Problem,
    plan::SocketVerdicts,
};

/// What the map holds; nothing where it cannot be read.
pub(crate) fn read(netns: &Netns) -> SocketVerdicts {
    hash::read(netns).map(codec::decode_socket_verdicts).unwrap_or_default()
}

/// Makes the map hold exactly `wanted`.
pub(crate) fn set(netns: &mut Netns, wanted: &SocketVerdicts) -> Option<Problem> {
    let wanted: BTreeMap<u64, u32> = wanted
        .iter()
        .map(|(cookie, verdict)| (*cookie, codec::encode_socket_verdict(*verdict)))
        .collect();
    let (count, error) = match hash::replace(netns, &wanted) {
        Ok(failed) => (failed.len(), with_causes(&failed.first()?.1)),
        Err(error) => (wanted.len(), with_causes(&error)),
    };
    Some(Problem::new(
        format!("map {}", map::NETNS),
        format!("{count} network namespaces cannot be entered into it: {error}"),
        "their pods are served by packets where kproxy does not know them yet; restart kproxy",
    ))
}
