//! The map of source addresses by uplink.

use std::collections::BTreeMap;

use kproxy_common::{abi::map, config::Uplink};

use super::{load::Uplinks, sys};
use crate::model::Problem;

/// Makes the map hold exactly `wanted`. A device that cannot be written keeps what it has.
pub(super) fn set(uplinks: &mut Uplinks, wanted: &BTreeMap<u32, Uplink>) -> Vec<Problem> {
    let there: BTreeMap<u32, Uplink> = match sys::read_hash(uplinks) {
        Ok(entries) => entries.into_iter().collect(),
        Err(error) => return vec![problem("read the source addresses", error)],
    };
    let mut problems = Vec::new();
    for (device, addresses) in wanted {
        if there.get(device) == Some(addresses) {
            continue;
        }
        if let Err(error) = uplinks.insert(device, addresses, 0) {
            problems.push(problem(&format!("set the source addresses of device {device}"), error));
        }
    }
    for device in there.keys().filter(|device| !wanted.contains_key(device)) {
        if let Err(error) = uplinks.remove(device) {
            problems.push(problem(&format!("forget device {device}"), error));
        }
    }
    problems
}

fn problem(what: &str, error: impl std::fmt::Display) -> Problem {
    Problem::new(
        format!("map {}", map::UPLINKS),
        format!("{what}: {error}"),
        "backends on other nodes may not be reached from outside; restart kproxy",
    )
}
