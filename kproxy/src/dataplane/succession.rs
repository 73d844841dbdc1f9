//! Coming after somebody else: programs of another layout version, or kube-proxy.

use std::{collections::BTreeSet, mem};

use kproxy_common::{
    abi::{map, program},
    config::{Range, SERVICE_RANGES, config_flags},
};

use super::{
    Dataplane, Error,
    kernel::clock,
    programs::{pins::PinDirs, place::Place, predecessor::Predecessor, takeover::Takeover},
    upkeep::adopt,
};
use crate::node::{Served, ctnetlink::Tracked};

/// What [`Dataplane::serve`] needs to have the programs serve.
pub(crate) struct HeldBack([[Range; SERVICE_RANGES]; 2]);

impl Dataplane {
    /// Begins to go on with the maps of the latest of other layout versions.
    pub(super) fn begin_takeover(
        predecessors: &[Predecessor],
        dirs: &PinDirs,
    ) -> Result<Option<Takeover>, Error> {
        let Some(latest) = predecessors.last() else { return Ok(None) };
        let has_none = !dirs.map(map::FLOWS).exists();
        let (takeover, version) = (latest.take_over(dirs)?, latest.version());
        if takeover.is_some() {
            tracing::info!(version, "going on with the maps of another layout version");
        } else if has_none {
            tracing::warn!(
                version,
                "another layout version does not say what its maps mean: connections that it \
                 translates packet by packet end"
            );
        }
        Ok(takeover)
    }

    /// Removes what other layout versions have left, once this one is attached.
    pub(super) fn remove_predecessors(&mut self) -> Vec<Error> {
        let remove = |other: Predecessor| {
            tracing::info!(version = other.version(), "removed another layout version");
            other.remove()
        };
        let predecessors = mem::take(&mut self.predecessors);
        let mut errors: Vec<_> = predecessors.into_iter().flat_map(remove).collect();
        errors.extend(self.attachments.finish_takeover().err());
        errors
    }

    /// Attaches the programs to these places while those of another version go on with flows of their own; these
    /// go on with them afterwards.
    pub(super) fn take_over(
        &mut self,
        mut takeover: Takeover,
        places: BTreeSet<Place>,
    ) -> Vec<Error> {
        let start = clock::now();
        let (loopback, answers_pods) = (self.wants_loopback(), self.pod_flows.answers_pods());
        self.change_config(|config| config.flags |= config_flags::ARRIVING);
        let mut hand_over = || {
            takeover.stay()?;
            // What fails here fails again below.
            let _again = self.attachments.attach_behind(places.clone(), loopback, answers_pods);
            takeover.copy()?;
            takeover.leave()?;
            takeover.copy()
        };
        let mut errors: Vec<_> = hand_over().err().into_iter().collect();
        errors.extend(self.attachments.come_first(places.clone(), loopback, answers_pods));
        errors.extend(takeover.copy().err());
        errors.extend(self.sync_places(places));
        self.change_config(|config| config.flags &= !config_flags::ARRIVING);
        let took = clock::now().saturating_sub(start);
        tracing::info!(?took, "took over the flows of another layout version");
        errors
    }

    /// Has the programs leave to netfilter what it translates to a frontend: connections that kube-proxy has opened.
    /// How many they are.
    ///
    /// # Errors
    /// The program could not be run.
    pub(crate) fn leave_to_netfilter(&mut self, tracked: &[Tracked]) -> Result<usize, Error> {
        adopt::leave(&self.adopt, tracked)
            .map_err(|error| Error::Program { program: program::ADOPT, source: error.into() })
    }

    /// Has the programs serve nothing while they are attached, until [`Self::serve`]. `None`: some are attached
    /// already and go on.
    pub(crate) fn hold_back(&mut self) -> Option<HeldBack> {
        let is_new = self.served() == Served::default() && !self.attachments.has_cgroup();
        is_new.then(|| {
            let mut service = Default::default();
            // Or every ClusterIP would be a free address of the range, from which packets must not leave.
            self.change_config(|config| service = mem::take(&mut config.service));
            self.writer.hold_back();
            HeldBack(service)
        })
    }

    /// Has the programs serve.
    pub(crate) fn serve(&mut self, HeldBack(service): HeldBack) {
        self.writer.serve();
        self.change_config(|config| config.service = service);
    }
}
