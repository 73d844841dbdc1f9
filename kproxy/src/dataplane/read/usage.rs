//! How full the maps are.

use aya::maps::{IterableMap as _, MapData};
use kproxy_common::{abi::map, filter, flow::flow_flags, service::service_flags};

use super::{error::ReadError, pins::Pins, rows::UsageRow};
use crate::dataplane::{codec, connections::connections, kernel::hash};

impl Pins {
    /// How full each map is. Counted from the maps, exact at the moment of the call.
    ///
    /// # Errors
    /// A map could not be read.
    pub(crate) fn usage(&self) -> Result<Vec<UsageRow>, ReadError> {
        let (mut services, mut slots) = (0, 0);
        for index in 0..self.services.len() {
            let Some(entry) = self.services.get(index) else { break };
            if entry.flags & service_flags::IN_USE != 0 {
                services += 1;
                let word = codec::word_of(&entry);
                slots += u64::from(codec::run_len(word, self.slots.get(word.first)));
            }
        }
        let bits = (0..self.address_filter.len())
            .filter_map(|index| self.address_filter.get(index))
            .map(|word| u64::from(word.count_ones()))
            .sum();
        let frontends = self.frontend_entries()?.len();
        let names = hash::read(&self.names).map_err(ReadError::of_map(map::NAMES))?.len();
        let flows = self.flow_entries()?;
        let assured =
            connections(&flows).iter().filter(|flow| flow.has(flow_flags::ASSURED)).count();
        let drops = self.drops.keys().count() as u64;
        let clients = self.affinity_entries()?.len() as u64;
        let ranges = self.range_entries()?.len() as u64;
        let namespaces = self.socket_verdicts()?.len() as u64;
        let row = |map, used, capacity| UsageRow { map, used, capacity };
        Ok(vec![
            row(map::FRONTENDS, frontends as u64, capacity(self.frontends.map())),
            row(map::SERVICES, services, self.services.len().into()),
            row(map::SLOTS, slots, self.slots.len().into()),
            row(map::FILTER, bits, filter::BITS.into()),
            row(map::NAMES, names as u64, capacity(self.names.map())),
            row(map::FLOWS, flows.len() as u64, capacity(self.flows.map())),
            row(map::ASSURED, assured as u64, self.config().max_assured.into()),
            row(map::DROPS, drops, capacity(self.drops.map())),
            row(map::AFFINITY, clients, capacity(self.affinity.map())),
            row(map::RANGES, ranges, capacity(self.ranges.map())),
            row(map::NETNS, namespaces, capacity(self.netns.map())),
        ])
    }
}

fn capacity(map: &MapData) -> u64 {
    map.info().map_or(0, |info| info.max_entries().into())
}
