//! Where a case is played: what it has made, and what its looks have in common.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    thread::{ScopedJoinHandle, scope},
    time::Duration,
};

use anyhow::{Result, anyhow};
use kproxy_lab::{Family, Held, Network, Stepped, Transport, poll_until};
use serde_json::Value;

use super::{
    expected::Expected,
    names::Names,
    over::Over,
    scrape::Scrape,
    sight::{Sight, fits, fits_elsewhere},
    world::World,
};

/// How long a change may need to show.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Pause before looking again.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// One case on the lab.
pub(super) struct Stage<'a> {
    pub(super) world: &'a World<'a>,
    pub(super) names: Names,
    /// Objects of the case as they are now, by kind and name.
    pub(super) objects: BTreeMap<(String, String), Value>,
    /// Connections, by the words of their `hold`.
    pub(super) held: Vec<(String, Held)>,
    /// Open sockets that are led step by step.
    pub(super) sockets: Vec<Led>,
    /// What proxies have counted, by node.
    pub(super) scrapes: BTreeMap<String, Scrape>,
    /// Servers besides the pods' own: places and ports.
    pub(super) servers: Vec<(String, u16)>,
    /// What takes the case's changes back, in the order in which they were made.
    pub(super) undo: Vec<Undo>,
    /// How long a change may need to show.
    pub(super) patience: Duration,
}

/// A socket that is led step by step.
pub(super) struct Led {
    /// Words of the step that opened it.
    pub(super) of: String,
    pub(super) from: String,
    pub(super) family: Family,
    pub(super) socket: Stepped,
    /// What the case calls the addresses that it has dialled.
    pub(super) dialled: BTreeMap<SocketAddr, String>,
}

/// What takes a change back.
pub(super) enum Undo {
    /// The proxies have been killed.
    Start,
    /// A command in a place.
    Command { on: String, words: String },
    /// A patch of an object.
    Patch { kind: String, name: String, fields: Value },
}

impl<'a> Stage<'a> {
    pub(super) fn new(world: &'a World<'a>) -> Self {
        Self {
            world,
            names: world.names.clone(),
            objects: BTreeMap::new(),
            held: Vec::new(),
            sockets: Vec::new(),
            scrapes: BTreeMap::new(),
            servers: Vec::new(),
            undo: Vec::new(),
            patience: PATIENCE,
        }
    }

    /// What must be seen on the proxy that is there.
    pub(super) fn expected(&self, see: &Expected) -> Result<String> {
        self.names.fill_in(see.on(self.world.who))
    }

    /// What a look has shown. Each proxy picks backends of its own; where the one that was remembered
    /// is seen, its name is, so that proxies can be compared.
    pub(super) fn sight(
        &self,
        what: &str,
        ids: &[String],
        see: &Expected,
        expected: &str,
        seen: String,
    ) -> Sight {
        let named = see.on(self.world.who).replace("${", "").replace('}', "");
        let seen = if fits(expected, &seen) { named.clone() } else { seen };
        Sight { probe: what.to_owned(), ids: ids.to_vec(), expected: named, seen }
    }

    /// Looks at each item, side by side, again and again until it shows what is expected.
    pub(super) fn each<T: Sync + ToString>(
        &self,
        expected: &str,
        items: &[T],
        look: impl Fn(&T) -> Result<String> + Sync,
    ) -> Result<String> {
        // Thousands of connections on the same few ports would be all that more looks bring.
        let elsewhere = self.world.lab.network() != Network::Bridge;
        let is_enough =
            |seen: &String| fits(expected, seen) || elsewhere && fits_elsewhere(expected, seen);
        let until_expected = |item: &T| poll_until(self.patience, PAUSE, || look(item), is_enough);
        let mut sights = BTreeMap::<String, BTreeSet<String>>::new();
        let looks: Vec<Result<String>> = scope(|scope| {
            let until_expected = &until_expected;
            let threads: Vec<_> =
                items.iter().map(|item| scope.spawn(move || until_expected(item))).collect();
            let join = |thread: ScopedJoinHandle<'_, Result<String>>| {
                thread.join().map_err(|_panic| anyhow!("a look panicked"))?
            };
            threads.into_iter().map(join).collect()
        });
        for (item, sight) in items.iter().zip(looks) {
            sights.entry(sight?).or_default().insert(item.to_string());
        }
        if sights.len() == 1 {
            return Ok(sights.into_keys().collect());
        }
        let parts = sights.into_iter().map(|(sight, items)| {
            format!("{sight} ({})", items.into_iter().collect::<Vec<_>>().join(", "))
        });
        Ok(parts.collect::<Vec<_>>().join("; "))
    }
}

/// The lab's word for a kind of socket.
pub(super) const fn transport(over: Over) -> Transport {
    match over {
        Over::Tcp => Transport::Tcp,
        Over::Udp => Transport::UdpConnected,
        Over::UdpUnconnected => Transport::UdpUnconnected,
        Over::Mptcp => Transport::Mptcp,
    }
}
