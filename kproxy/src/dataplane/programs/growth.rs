//! Larger maps in the place of full ones, while traffic goes on.
//!
//! The size of a map is fixed, and so are the maps of a program. So the object is loaded once more, with
//! larger maps beside those that are in use and all others as they are; the caller copies what the old ones
//! hold; then the new ones get the old ones' pins, and the links the new programs, one after the other. Until
//! a link has its new program the old one goes on with the old maps, which nobody changes any more. A crash at
//! any point leaves pins that lead to maps with the same contents.

use std::{os::fd::AsFd as _, path::PathBuf};

use aya::maps::MapInfo;
use kproxy_common::abi::map;

use super::{
    load::{self, KeptMap, Loaded, MapSource},
    map_shapes, memlock, pinning,
    pins::PinDirs,
};
use crate::dataplane::{error::Error, kernel::bpf, settings::Sizes};

/// The object with larger maps. Dropped before [`Self::keep`], it leaves nothing.
pub(crate) struct Larger {
    loaded: Option<Loaded>,
    /// Pins of the new maps, and where they belong.
    pins: Vec<(PathBuf, PathBuf)>,
}

impl Larger {
    /// Loads `bytes` with maps of these sizes where those that are pinned are smaller. `kept`: maps without
    /// pins that the new programs go on with.
    ///
    /// # Errors
    /// The kernel has no memory for them, or refuses a program.
    pub(crate) fn load(
        bytes: &[u8],
        sizes: &Sizes,
        dirs: &PinDirs,
        kept: &[KeptMap],
    ) -> Result<Self, Error> {
        let memlock = memlock::raise_limit();
        let mut larger = Self { loaded: None, pins: Vec::new() };
        let mut sources = Vec::new();
        for map in &map_shapes::ALL {
            let pin = dirs.map(map.name);
            let capacity = sizes.of(map.name);
            let info = MapInfo::from_pin(&pin).map_err(Error::of_pin("look at", &pin))?;
            let pin = if capacity.is_some_and(|capacity| capacity > info.max_entries()) {
                larger.fresh(pin)?
            } else {
                pin
            };
            sources.push(MapSource { name: map.name, pin: Some(pin), capacity });
        }
        // These are pinned for as long as the loader looks for them.
        let mut lent = Self { loaded: None, pins: Vec::new() };
        for KeptMap { name, map } in kept {
            let pin = lent.fresh(dirs.map(name))?;
            bpf::pin(map.as_fd(), &pin).map_err(Error::of_pin("pin", &pin))?;
            sources.push(MapSource { name, pin: Some(pin), capacity: None });
        }
        let object = load::load_maps(bytes, sources.into_iter(), memlock)?;
        drop(lent);
        larger.loaded = Some(load::load_programs(object, dirs, memlock, false, Vec::new())?);
        Ok(larger)
    }

    /// A place for a pin beside the one where it belongs.
    fn fresh(&mut self, pin: PathBuf) -> Result<PathBuf, Error> {
        let fresh = pinning::fresh_name(&pin);
        pinning::remove(&fresh)?;
        self.pins.push((fresh.clone(), pin));
        Ok(fresh)
    }

    /// What was loaded, once.
    pub(crate) fn take(&mut self) -> Option<Loaded> {
        self.loaded.take()
    }

    /// Puts the new maps in the place of the old ones. That of the service ports comes last: until then it says
    /// how many there may be, and the others have room for more.
    ///
    /// # Errors
    /// A pin could not be replaced. Those before it are.
    pub(crate) fn keep(mut self) -> Result<(), Error> {
        let mut pins = std::mem::take(&mut self.pins);
        pins.sort_by_key(|(_, pin)| pin.ends_with(map::SERVICES));
        for (fresh, pin) in pins {
            pinning::rename(&fresh, &pin)?;
        }
        Ok(())
    }
}

impl Drop for Larger {
    fn drop(&mut self) {
        for (fresh, _) in &self.pins {
            // What is left is removed at the next start.
            let _left = pinning::remove(fresh);
        }
    }
}
