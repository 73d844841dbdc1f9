//! What a call did, and how full the maps are.

use std::{net::SocketAddr, time::Duration};

use serde::Serialize;

use super::{error::Error, settings::Sizes};
use crate::model::Problem;

/// What one call changed and what it could not do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// `bpf()` calls that changed a map.
    pub writes: usize,
    /// Backend sets that were changed through shared memory, without any call.
    pub words: usize,
    /// What could not be done. What a map refused is tried again when there is room.
    pub problems: Vec<Problem>,
    /// When there is room that something waits for: what was freed rests before it is given out again. `None`: nothing
    /// waits, or nothing rests.
    pub room_in: Option<Duration>,
}

impl Report {
    /// Whether nothing was changed and nothing went wrong.
    pub fn is_empty(&self) -> bool {
        self.writes == 0 && self.words == 0 && self.problems.is_empty()
    }
}

impl From<Vec<Problem>> for Report {
    fn from(problems: Vec<Problem>) -> Self {
        Self { problems, ..Self::default() }
    }
}

impl From<Vec<Error>> for Report {
    fn from(errors: Vec<Error>) -> Self {
        errors.iter().map(Error::to_problem).collect::<Vec<_>>().into()
    }
}

/// How full a map is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Fill {
    /// Entries in use.
    pub used: u32,
    /// Entries that fit.
    pub capacity: u32,
}

/// How full the maps are that can fill up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Usage {
    /// Frontends and address entries.
    pub frontends: Fill,
    /// Backend sets, two a service port.
    pub services: Fill,
    /// Backends.
    pub slots: Fill,
    /// Flow entries at the last sweep, two a connection.
    pub flows: Fill,
    /// What the first three grow to at most.
    pub most: Sizes,
}

/// Source ports that the programs give out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct PortPool {
    /// How many there are, for each backend.
    pub size: u32,
    /// The backend of which most are taken; `None`: none is.
    pub fullest: Option<PortUse>,
}

/// Source ports that connections to a backend hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct PortUse {
    /// The backend.
    pub backend: SocketAddr,
    /// Protocol; `None` for a number that kproxy never writes.
    pub protocol: Option<&'static str>,
    /// Ports that are taken.
    pub used: u32,
    /// Those of them that are held by assured connections, which give way to none.
    pub assured: u32,
}

impl PortUse {
    /// Whether nine ports in ten give way to no other connection.
    pub(crate) const fn is_nearly_held(&self, size: u32) -> bool {
        self.assured as u64 * 10 >= size as u64 * 9
    }
}
