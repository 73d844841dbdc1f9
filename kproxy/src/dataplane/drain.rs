//! Lets what is translated go on until it ends, and translates nothing new: the daemon is gone, and whoever comes
//! after it has its rules in place.

mod conntrack;

use std::{fs::File, io, path::Path};

use kproxy_common::{
    abi::map,
    config::Config,
    flow::{flow_flags, flow_state, state::is_over},
};
use nix::fcntl::Flock;

use self::conntrack::Told;
use super::{
    connections::{Connection, connections},
    error::Error,
    kernel::{clock, hash, memory::Memory},
    maps::Flows,
    programs::{
        load::{open_map, open_memory},
        pinning,
        pins::PinDirs,
    },
};

/// Seconds of silence after which UDP is led by whoever comes next: nothing else says that a dialogue has ended, and
/// clients that use their ports again would keep flows for ever.
const UDP: [(u8, u32); 3] =
    [(flow_state::UNREPLIED, 5), (flow_state::REPLIED, 5), (flow_state::STREAM, 30)];

/// What is over goes as soon as it is found: whoever comes next may give out its source port for the same backend, and
/// the answers must not be taken for those of before.
const OVER: [(u8, u32); 3] =
    [(flow_state::LAST_ACK, 0), (flow_state::TIME_WAIT, 0), (flow_state::RESET, 0)];

/// A data path that opens nothing any more.
pub(crate) struct Drain {
    flows: Flows,
    config: Memory<Config>,
    /// Netfilter, which knows what is open, so that whoever comes next gives out none of its source ports.
    told: Told,
    /// No daemon starts meanwhile: it would serve again.
    _lock: Flock<File>,
}

impl Drain {
    /// Has the programs take no address for a Service's from now on: the address filter rules all of them out,
    /// and no address is a free one of a Service range. What has a flow goes on, and so do sockets that were
    /// given a backend. `None`: there is no data path of this version.
    ///
    /// # Errors
    /// A daemon is at work, or a map cannot be opened.
    pub(crate) fn begin(bpffs_root: &Path) -> Result<Option<Self>, Error> {
        let dirs = PinDirs::new(bpffs_root);
        if !dirs.map(map::FLOWS).exists() {
            return Ok(None);
        }
        let lock = pinning::lock(&dirs.version)?;
        let filter: Memory<u64> = open_memory(&dirs, map::FILTER)?;
        let config: Memory<Config> = open_memory(&dirs, map::CONFIG)?;
        let flows = open_map(&dirs, map::FLOWS)?;
        let mut drain = Self { flows, config, told: Told::default(), _lock: lock };
        // Before anybody else opens a connection; what is opened meanwhile in less time, and the rest just after.
        drain.open_connections()?;
        drain.open_connections()?;
        if let Some(mut present) = drain.config.get(0) {
            present.service = Config::default().service;
            for (state, at_most) in OVER.into_iter().chain(UDP) {
                let timeout = &mut present.timeouts[usize::from(state)];
                *timeout = at_most.min(*timeout);
            }
            let _exists = drain.config.write(0, &present);
        }
        for word in 0..filter.len() {
            filter.change_bits(word, u64::MAX, 0);
        }
        drain.open_connections()?;
        Ok(Some(drain))
    }

    /// Connections that are translated and may go on. Netfilter knows them then.
    ///
    /// # Errors
    /// The flow table cannot be read.
    pub(crate) fn open_connections(&mut self) -> Result<usize, Error> {
        let entries = hash::read(&self.flows).map_err(Error::of_map("read", map::FLOWS))?;
        let config = self.config.get(0).unwrap_or_default();
        let now = clock::in_seconds(clock::now());
        let goes_on = |connection: &Connection<'_>| {
            let is_over = connection.entries().all(|(_, value)| is_over(value.state));
            !is_over && !connection.is_forgotten(&config, now)
        };
        let mut present = connections(&entries);
        present.retain(|connection| {
            let is_translated = !connection.has(flow_flags::UNTRANSLATED);
            // The programs find what is over until its second is.
            is_translated && (goes_on(connection) || connection.idle(now) <= 1)
        });
        self.told.tell(&present, &config);
        present.retain(goes_on);
        Ok(present.len())
    }

    /// Nobody waits any longer: what the programs pass on themselves is left to netfilter. How many connections
    /// that are.
    pub(crate) fn leave(mut self) -> usize {
        self.told.leave(&mut self.flows)
    }

    /// Why netfilter does not know some of them.
    pub(crate) const fn untold(&self) -> Option<&io::Error> {
        self.told.problem()
    }
}
