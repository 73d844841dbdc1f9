//! How large the maps must be for what a pass has found no room for, and the move to larger ones.

use super::{maps::Maps, missing::Missing, state::Writer};
use crate::{dataplane::settings::Sizes, model::Problem};

impl<M: Maps> Writer<M> {
    /// Lets maps grow up to these capacities.
    pub(crate) const fn grow_to(&mut self, most: Sizes) {
        self.most = most;
    }

    /// Lets the maps stay as large as they are, and has what waits for room tried again.
    pub(crate) fn keep_size(&mut self) {
        self.most = self.sizes();
        self.has_room = true;
    }

    /// Capacities that the maps may grow to; of one that is larger already, its own.
    pub(crate) fn most(&self) -> Sizes {
        let (most, present) = (self.most, self.sizes());
        Sizes {
            services: most.services.max(present.services),
            slots: most.slots.max(present.slots),
            frontends: most.frontends.max(present.frontends),
        }
    }

    /// Whether the map of slots may still grow.
    pub(super) fn may_have_more_slots(&self) -> bool {
        self.slots.capacity() < self.most.slots
    }

    /// Capacities with which what the last pass has refused finds room, as far as they may be; `None`:
    /// nothing was refused that larger maps would take.
    pub(crate) fn sizes_wanted(&self) -> Option<Sizes> {
        let Missing { service_ports, slots, frontends, .. } = &self.missing;
        let present = self.sizes();
        let [in_frontends, _, _] = self.fills();
        let ids = self.ids.used() + self.ids.resting();
        let in_slots = self.slots.used() + self.slots.resting();
        let wanted = Sizes {
            services: larger(present.services, ids * 2, service_ports * 2, self.most.services),
            slots: larger(present.slots, in_slots, *slots, self.most.slots),
            frontends: larger(
                present.frontends,
                in_frontends.used,
                *frontends,
                self.most.frontends,
            ),
        };
        (wanted != present).then_some(wanted)
    }

    /// Capacities of the maps.
    fn sizes(&self) -> Sizes {
        Sizes {
            services: self.maps.services().len(),
            slots: self.slots.capacity(),
            frontends: self.maps.frontends_capacity(),
        }
    }

    /// Goes on with larger maps that hold the same, and has what waits for room tried again.
    pub(crate) fn move_to(&mut self, maps: M) {
        self.maps.replace(maps);
        self.slots.grow(self.maps.slots().len());
        self.ids.grow(self.maps.services().len() / 2);
        self.has_room = true;
    }

    /// What was said in the last pass of that which waits.
    pub(crate) fn take_waiting(&mut self) -> Vec<Problem> {
        std::mem::take(&mut self.missing.problems)
    }

    /// The maps themselves.
    pub(crate) const fn maps(&self) -> &M {
        self.maps.maps()
    }
}

/// Capacity for `used` entries and `missing` more that leaves a third free, at least twice the present one
/// and at most `most`.
fn larger(present: u32, used: u32, missing: u32, most: u32) -> u32 {
    if missing == 0 || present >= most {
        return present;
    }
    let wanted = (u64::from(used) + u64::from(missing)) * 3 / 2;
    let wanted = wanted.max(u64::from(present) * 2).next_power_of_two();
    u32::try_from(wanted).unwrap_or(u32::MAX).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_grow_at_least_twofold_and_to_the_limit_at_most() {
        for (present, used, missing, most, then) in [
            (64, 60, 0, 1024, 64),
            (64, 60, 5, 1024, 128),
            (64, 60, 100, 1024, 256),
            (64, 60, 5, 100, 100),
            (100, 60, 50, 100, 100),
            (128, 60, 50, 100, 128),
            (1 << 30, 1 << 30, u32::MAX, u32::MAX, u32::MAX),
        ] {
            assert_eq!(larger(present, used, missing, most), then, "{present} {used} {missing}");
        }
    }
}
