//! A case: its ids and its steps.
//!
//! Cases are data: `cases/*.yaml`, read by [`super::read`] and played by [`super::play`].

use super::{expected::Expected, step::Step};

/// A case.
#[derive(Debug)]
pub(super) struct Case {
    /// Its name: the id of the behaviour, and more words where an id has several cases.
    pub(super) name: String,
    /// Id of the behaviour.
    pub(super) id: String,
    /// Further ids that it shows.
    pub(super) covers: Vec<String>,
    /// How the proxies are set up: a name in `settings.yaml`.
    pub(super) settings: String,
    /// It changes what other cases see, so no other is played meanwhile.
    pub(super) alone: bool,
    /// What is done, in order.
    pub(super) steps: Vec<Step>,
}

impl Case {
    /// Its id and the further ones.
    pub(super) fn ids(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.id).chain(&self.covers).map(String::as_str)
    }

    /// What its steps look at: ids that a look is for, if not all, and what must be seen.
    pub(super) fn looks(&self) -> impl Iterator<Item = (&[String], &Expected)> {
        self.steps.iter().filter_map(|step| match step {
            Step::Probe(probe) => Some((probe.ids.as_slice(), &probe.see)),
            Step::Http(http) => Some((http.ids.as_slice(), &http.see)),
            Step::Held(held) => Some((held.ids.as_slice(), &held.see)),
            Step::Forge(forge) => Some((forge.ids.as_slice(), &forge.see)),
            Step::Sockets(sockets) => Some((sockets.ids.as_slice(), &sockets.see)),
            Step::Metrics(metrics) => Some((metrics.ids.as_slice(), &metrics.see)),
            _ => None,
        })
    }

    /// Whether a look that names `ids` is for `id`: it names it, or it names none and no other look
    /// names it.
    pub(super) fn is_for(&self, id: &str, ids: &[String]) -> bool {
        let names = |ids: &[String]| ids.iter().any(|named| named == id);
        let general = || self.id == id || !self.looks().any(|(ids, _)| names(ids));
        names(ids) || (ids.is_empty() && general())
    }

    /// It is played on kube-proxy's iptables mode, too.
    pub(super) fn is_for_iptables(&self) -> bool {
        self.looks().any(|(_, see)| see.names_iptables())
    }
}
