//! All that `kproxy explain` asks the maps for.

use kproxy_common::{
    abi::{kernel_feature, map, program},
    config::config_flags,
};

use super::{error::ReadError, pins::Pins, rows::LinkTarget};
use crate::dataplane::{
    explain::view::{Run, View},
    kernel::{clock, hash},
    programs::load::kernel_features,
};

impl Pins {
    /// What the maps hold, for [`crate::dataplane::explain`]. Reads the clock.
    ///
    /// # Errors
    /// A map or the links could not be read.
    pub(crate) fn view(&self) -> Result<View, ReadError> {
        let slot = |number| self.slots.get(number);
        let runs = (0..self.services.len())
            .filter_map(|index| Some((index, Run::of(self.services.get(index)?, slot)?)));
        let links = self.links()?;
        let is_attached = |name: &str| {
            links.iter().any(|link| link.program == name && link.target != LinkTarget::Gone)
        };
        // Before 6.6 programs of devices are no links, and nothing is known of them here.
        let has_device_links = program::DEVICE.iter().any(|name| is_attached(name));
        let config = self.config();
        let uses_sockets = config.flags & config_flags::NODE_PACKETS == 0;
        Ok(View {
            frontends: self.frontend_entries()?.into_iter().collect(),
            runs: runs.collect(),
            ranges: self.range_entries()?,
            affinity: self.affinity_entries()?.into_iter().collect(),
            names: self.names()?,
            uplinks: hash::read(&self.uplinks)
                .map_err(ReadError::of_map(map::UPLINKS))?
                .into_iter()
                .collect(),
            netns: hash::read(&self.netns)
                .map_err(ReadError::of_map(map::NETNS))?
                .into_iter()
                .collect(),
            config,
            has_sockets: uses_sockets && is_attached("kp_connect4") && is_attached("kp_connect6"),
            has_pod_links: !has_device_links || is_attached(program::POD_INGRESS),
            refuses_calls: kernel_features() & kernel_feature::SET_RETVAL != 0,
            now: u64::try_from(clock::now().as_nanos()).unwrap_or(u64::MAX),
        })
    }
}
