//! Listening to what the programs decide, for `kproxy trace`.
//!
//! The programs tell as long as the lease in KP_TRACE runs, which the listener renews: should it die, they fall
//! silent by themselves. A lock on the folder of the maps' pins keeps it alone; the kernel lets go of it when the
//! process ends.

mod event;

use std::{
    fs::File,
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    time::Duration,
};

use aya::maps::{Map, MapData, MapError, PerCpuArray, RingBuf};
use kproxy_common::{
    abi::map,
    trace::{Event, Trace},
};
use nix::{
    fcntl::{Flock, FlockArg},
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use thiserror::Error;
use zerocopy::FromBytes as _;

pub(crate) use self::event::{EventRow, Outcome};
use super::{
    kernel::{bpf::Access, clock, memory::Memory},
    programs::pins::PinDirs,
    read::{OpenError, Opener},
};

/// How long the programs go on telling when nobody renews the lease.
const LEASE: Duration = Duration::from_secs(3);

/// Why nobody can listen.
#[derive(Debug, Error)]
pub(crate) enum ListenError {
    /// Somebody does already.
    #[error(
        "another `kproxy trace` is running on this node, and one at a time may listen; wait for it or end it"
    )]
    Busy,
    /// The pins cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The kernel refused.
    #[error("could not listen at {}", path.display())]
    Kernel {
        /// What was used.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Who listens; the programs fall silent when it is dropped.
pub(crate) struct Listener {
    ring: RingBuf<MapData>,
    trace: Memory<Trace>,
    untold: PerCpuArray<MapData, u64>,
    wanted: Trace,
    /// What was not told to those before.
    before: u64,
    folder: PathBuf,
    _alone: Flock<File>,
}

impl Listener {
    /// Begins to listen. The lease in `wanted` does not count.
    ///
    /// # Errors
    /// Somebody listens already, or the pins cannot be opened.
    pub(crate) fn new(bpffs_root: &Path, wanted: Trace) -> Result<Self, ListenError> {
        let dirs = PinDirs::new(bpffs_root);
        super::read::check_folders(bpffs_root, &dirs)?;
        let open = Opener { dirs: &dirs };
        let ring = open.data(map::EVENTS, Access::ReadWrite)?;
        let failed = |name| {
            let path = dirs.map(name);
            move |error: MapError| ListenError::Kernel { path, source: io::Error::other(error) }
        };
        let alone = lock(&dirs.maps)?;
        let ring =
            Map::from_map_data(ring).and_then(RingBuf::try_from).map_err(failed(map::EVENTS))?;
        let trace = open.data(map::TRACE, Access::ReadWrite)?;
        let path = dirs.map(map::TRACE);
        let trace = Memory::of_map(trace.fd().as_fd(), 1)
            .map_err(|source| ListenError::Kernel { path, source })?;
        let untold = open.typed(map::UNTOLD)?;
        let mut listener =
            Self { ring, trace, untold, wanted, before: 0, folder: dirs.maps, _alone: alone };
        // Somebody may have died before it had read all.
        while listener.ring.next().is_some() {}
        listener.before = listener.all_untold();
        listener.renew();
        Ok(listener)
    }

    /// Lets the programs tell for a while longer; to be called about every second.
    pub(crate) fn renew(&self) {
        let until = (clock::now() + LEASE).as_nanos() as u64;
        let _there = self.trace.publish(0, &Trace { until, ..self.wanted });
    }

    /// The next event, if there is one.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let record = self.ring.next()?;
        Event::read_from_prefix(&record).ok().map(|(event, _)| event)
    }

    /// Sleeps until there is an event, a signal comes, or the time is up.
    ///
    /// # Errors
    /// Those of poll(2).
    pub(crate) fn wait(&self, timeout: Duration) -> Result<(), ListenError> {
        let mut ring = [PollFd::new(self.ring.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ring, PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(nix::Error::EINTR) => Ok(()),
            Err(errno) => {
                Err(ListenError::Kernel { path: self.folder.clone(), source: errno.into() })
            }
        }
    }

    /// How many events were wanted and not told: they were too many, or were read too late.
    pub(crate) fn untold(&self) -> u64 {
        self.all_untold().saturating_sub(self.before)
    }

    fn all_untold(&self) -> u64 {
        self.untold.get(&0, 0).map_or(0, |per_cpu| per_cpu.iter().sum())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _there = self.trace.publish(0, &Trace::default());
    }
}

/// Locks the folder of the maps' pins, which nobody else does.
fn lock(folder: &Path) -> Result<Flock<File>, ListenError> {
    let failed = |source| ListenError::Kernel { path: folder.to_owned(), source };
    let file = File::open(folder).map_err(failed)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::Error::EWOULDBLOCK => ListenError::Busy,
        errno => failed(errno.into()),
    })
}
