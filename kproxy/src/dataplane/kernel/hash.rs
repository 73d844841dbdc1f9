//! Hash maps as a whole: read in few calls, or made to hold exactly what is wanted.

use std::{collections::BTreeMap, io};

use aya::maps::{HashMap, MapData, MapError};

use super::bpf::{self, MapBytes};

/// All elements of a map, in no order. Elements added or removed meanwhile may or may not be seen;
/// the others are seen once.
///
/// # Errors
/// Those of the lookups.
pub(crate) fn read<K, V>(map: &HashMap<MapData, K, V>) -> io::Result<Vec<(K, V)>>
where
    K: MapBytes + aya::Pod,
    V: MapBytes + aya::Pod,
{
    match read_in_batches(map) {
        Err(error) if has_no_batches(&error) => {
            map.iter().map(|element| element.map_err(io::Error::other)).collect()
        }
        result => result,
    }
}

/// Hundreds of elements a call instead of two calls an element.
fn read_in_batches<K, V>(map: &HashMap<MapData, K, V>) -> io::Result<Vec<(K, V)>>
where
    K: MapBytes + aya::Pod,
    V: MapBytes + aya::Pod,
{
    const AT_ONCE: usize = 4096;
    let (mut keys, mut values) = (vec![K::new_zeroed(); AT_ONCE], vec![V::new_zeroed(); AT_ONCE]);
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        match bpf::lookup_batch(map, cursor, &mut keys, &mut values) {
            Ok((found, next)) => {
                all.extend(keys.iter().copied().zip(values.iter().copied()).take(found));
                cursor = next;
                if cursor.is_none() {
                    return Ok(all);
                }
            }
            // One bucket holds more elements than fit: take more at a time.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                let more = keys.len() * 2;
                keys.resize(more, K::new_zeroed());
                values.resize(more, V::new_zeroed());
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether the kernel has none for this map.
pub(crate) fn has_no_batches(error: &io::Error) -> bool {
    const ENOTSUPP: i32 = 524;
    matches!(error.raw_os_error(), Some(libc::EINVAL | ENOTSUPP | libc::EOPNOTSUPP))
}

/// Makes a small map hold exactly `wanted`, writing only what differs. What could not be written or
/// removed stays as it was: its keys, and why.
///
/// # Errors
/// The map could not be read; nothing was written.
pub(crate) fn replace<K, V>(
    map: &mut HashMap<MapData, K, V>,
    wanted: &BTreeMap<K, V>,
) -> io::Result<Vec<(K, MapError)>>
where
    K: MapBytes + aya::Pod + Ord,
    V: MapBytes + aya::Pod + PartialEq,
{
    let there: BTreeMap<K, V> = read(map)?.into_iter().collect();
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
