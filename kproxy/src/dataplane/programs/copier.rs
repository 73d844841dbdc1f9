//! Brings what a map of another version holds into the one of this version, again and again while programs of
//! both work on them.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    ops::Range,
};

use super::layout::Conversion;
use crate::dataplane::kernel::{bpf::RawMap, hash::has_no_batches};

/// From one map to another.
pub(super) struct Copier {
    from: RawMap,
    to: RawMap,
    conversion: Conversion,
    /// Where a value of this version says how recent it is.
    time: Option<Range<usize>>,
    /// By hash of the element's key, that of the value that was written here last.
    written: HashMap<u64, u64>,
}

/// What passes over maps came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Pass {
    /// Elements that were written.
    pub(super) written: usize,
    /// Those that mean nothing here, or have found no room.
    pub(super) lost: usize,
}

impl Copier {
    /// # Errors
    /// `EINVAL`: the maps have other sizes than their descriptions.
    pub(super) fn new(
        from: RawMap,
        to: RawMap,
        conversion: Conversion,
        time: Option<Range<usize>>,
    ) -> io::Result<Self> {
        if from.sizes() != conversion.sizes_before() || to.sizes() != conversion.sizes_after() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(Self { from, to, conversion, time, written: HashMap::new() })
    }

    /// Copies what is not here yet, and what has changed there while nobody has touched it here. Of what was
    /// here before, the more recent stays.
    ///
    /// # Errors
    /// Those of reading either map.
    pub(super) fn pass(&mut self) -> io::Result<Pass> {
        let Self { from, to, conversion, time, written } = self;
        let mut pass = Pass::default();
        for_each(from, |key, values| {
            if from.is_array() && is_zero(values) {
                return Ok(());
            }
            let converted = conversion.key(key).zip(conversion.values(values));
            let Some((key, values)) = converted else {
                pass.lost += 1;
                return Ok(());
            };
            let (name, now) = (hash_of(&key), hash_of(&values));
            let before = written.get(&name).copied();
            if before == Some(now) {
                return Ok(());
            }
            let here = to.get(&key)?.filter(|here| !(to.is_array() && is_zero(here)));
            let is_wanted = match (&here, before) {
                (None, _) => true,
                (Some(here), Some(before)) => hash_of(here) == before,
                (Some(here), None) => is_later(&values, here, time.as_ref()),
            };
            if is_wanted {
                // What programs put there meanwhile stays.
                let only_new = here.is_none() && !to.is_array();
                match to.set(&key, &values, only_new) {
                    Ok(is_set) => pass.written += usize::from(is_set),
                    Err(error) if is_full(&error) => pass.lost += 1,
                    Err(error) => return Err(error),
                }
            }
            written.insert(name, now);
            Ok(())
        })?;
        Ok(pass)
    }
}

/// Whether `there` is more recent than `here`; not where values do not say.
fn is_later(there: &[u8], here: &[u8], time: Option<&Range<usize>>) -> bool {
    let at = |value: &[u8]| {
        let mut bytes: Vec<u8> = value.get(time?.clone())?.to_vec();
        // Little-endian: the last bytes count most.
        bytes.reverse();
        Some(bytes)
    };
    at(there) > at(here)
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn hash_of(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// No room, or no memory.
fn is_full(error: &io::Error) -> bool {
    const FULL: [i32; 4] = [libc::E2BIG, libc::ENOSPC, libc::ENOMEM, libc::EBUSY];
    error.raw_os_error().is_some_and(|code| FULL.contains(&code))
}

/// Calls `each` for the elements of a map. Those added or removed meanwhile may or may not be seen.
pub(super) fn for_each(
    map: &RawMap,
    mut each: impl FnMut(&[u8], &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let (mut room, mut cursor) = (4096, None);
    loop {
        match map.batch(cursor, room) {
            Ok((found, next)) => {
                found.iter().try_for_each(|(key, values)| each(key, values))?;
                cursor = next;
                if cursor.is_none() {
                    return Ok(());
                }
            }
            // One bucket holds more elements than fit.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => room *= 2,
            Err(error) if cursor.is_none() && has_no_batches(&error) => break,
            Err(error) => return Err(error),
        }
    }
    // First all keys: after one that has been removed the walk begins anew.
    let mut keys: Vec<Vec<u8>> = Vec::new();
    while keys.len() <= map.entries() as usize
        && let Some(key) = map.key_after(keys.last().map(Vec::as_slice))?
    {
        keys.push(key);
    }
    for key in keys {
        if let Some(values) = map.get(&key)? {
            each(&key, &values)?;
        }
    }
    Ok(())
}
