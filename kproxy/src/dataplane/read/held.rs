//! All that `kproxy verify` and `kproxy diff` ask the maps for.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use kproxy_common::abi::map;

use super::{error::ReadError, pins::Pins};
use crate::{
    dataplane::{
        kernel::hash,
        programs::devices,
        verify::{Held, HeldSet},
    },
    node::Served,
};

impl Pins {
    /// What the maps hold, for [`crate::dataplane::verify`].
    ///
    /// # Errors
    /// A map could not be read.
    pub(crate) fn held(&self) -> Result<Held, ReadError> {
        let mut ranges: BTreeMap<u32, BTreeSet<IpNet>> = BTreeMap::new();
        for (id, net) in self.range_entries()? {
            ranges.entry(id).or_default().insert(net);
        }
        let set = |index| {
            let entry = self.services.get(index)?;
            Some((index, HeldSet::of(entry, |slot| self.slots.get(slot))?))
        };
        let uplinks = hash::read(&self.uplinks).map_err(ReadError::of_map(map::UPLINKS))?;
        let filter = 0..self.address_filter.len();
        let mut held = Held {
            names: self.names()?,
            sets: (0..self.services.len()).filter_map(set).collect(),
            slots: self.slots.len(),
            ranges,
            filter: filter.filter_map(|word| self.address_filter.get(word)).collect(),
            config: self.config(),
            uplinks: uplinks.into_iter().collect(),
            ..Held::default()
        };
        held.take_frontends(self.frontend_entries()?);
        Ok(held)
    }

    /// Devices that have programs, as far as pins tell.
    pub(crate) fn served(&self) -> Served {
        devices::served(self.dirs())
    }
}
