//! The map of source addresses by uplink.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
};

use kproxy_common::{abi::map, config::Uplink, net::Addr};

use crate::{
    dataplane::{kernel::hash, maps::Uplinks},
    errors::with_causes,
    model::Problem,
};

/// The source addresses of these uplinks; an uplink may have none of a family.
pub(super) fn sources<'a>(uplinks: impl IntoIterator<Item = &'a Uplink>) -> BTreeSet<Addr> {
    let sources = uplinks.into_iter().flat_map(|uplink| [uplink.v4, uplink.v6]);
    sources.filter(|source| *source != Addr::default()).collect()
}

/// Whether the map holds a source address that `wanted` does not.
pub(crate) fn loses(uplinks: &Uplinks, wanted: &BTreeMap<u32, Uplink>) -> bool {
    let there = hash::read(uplinks).unwrap_or_default();
    let there = sources(there.iter().map(|(_, uplink)| uplink));
    !there.is_subset(&sources(wanted.values()))
}

/// Makes the map hold exactly `wanted`. A device that cannot be written keeps what it has.
pub(crate) fn set(uplinks: &mut Uplinks, wanted: &BTreeMap<u32, Uplink>) -> Vec<Problem> {
    let failed = match hash::replace(uplinks, wanted) {
        Ok(failed) => failed,
        Err(error) => return vec![problem("read the source addresses", &error)],
    };
    let of_device = |device| format!("set or forget the source addresses of device {device}");
    failed.into_iter().map(|(device, error)| problem(&of_device(device), &error)).collect()
}

fn problem(what: &str, error: &(dyn Error + 'static)) -> Problem {
    Problem::new(
        format!("map {}", map::UPLINKS),
        format!("{what}: {}", with_causes(error)),
        "backends on other nodes may not be reached from outside; restart kproxy",
    )
}
