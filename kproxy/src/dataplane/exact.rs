//! Small hash maps that are written as a whole.

use std::{collections::BTreeMap, io};

use aya::maps::{HashMap, MapData, MapError};

use super::sys::{self, MapBytes};

/// Makes a map hold exactly `wanted`, writing only what differs. What could not be written or removed
/// stays as it was: its keys, and why.
///
/// # Errors
/// The map could not be read; nothing was written.
pub(super) fn set<K, V>(
    map: &mut HashMap<MapData, K, V>,
    wanted: &BTreeMap<K, V>,
) -> io::Result<Vec<(K, MapError)>>
where
    K: MapBytes + aya::Pod + Ord,
    V: MapBytes + aya::Pod + PartialEq,
{
    let there: BTreeMap<K, V> = sys::read_hash(map)?.into_iter().collect();
    let mut failed = Vec::new();
    // First, so that a full map has room for what comes.
    for key in there.keys().filter(|key| !wanted.contains_key(key)) {
        failed.extend(map.remove(key).err().map(|error| (*key, error)));
    }
    for (key, value) in wanted.iter().filter(|(key, value)| there.get(key) != Some(value)) {
        failed.extend(map.insert(key, value, 0).err().map(|error| (*key, error)));
    }
    Ok(failed)
}
