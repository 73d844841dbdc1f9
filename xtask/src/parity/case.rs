//! A case: its ids, its steps, and what must be seen on which proxy.
//!
//! Cases are data: `cases/*.yaml`, read by [`super::read`] and played by [`super::stage`].

use std::fmt;

use serde::Deserialize;

use super::step::Step;

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
    pub(super) fn looks(&self) -> impl Iterator<Item = (&[String], &See)> {
        self.steps.iter().filter_map(|step| match step {
            Step::Probe(probe) => Some((probe.ids.as_slice(), &probe.see)),
            Step::Http(http) => Some((http.ids.as_slice(), &http.see)),
            Step::Held(held) => Some((held.ids.as_slice(), &held.see)),
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

/// What must be seen, as [`super::seen`] writes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum See {
    /// On every proxy.
    All(String),
    /// On each.
    Each(SeeEach),
}

/// What must be seen where the proxies differ.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SeeEach {
    /// kube-proxy, nftables mode.
    nftables: String,
    /// kube-proxy, iptables mode, where the case is played on it.
    iptables: Option<String>,
    /// kproxy, if it differs from nftables on purpose.
    kproxy: Option<String>,
}

impl See {
    /// A look whose result on kproxy differs on purpose if `kproxy` is given.
    pub(super) const fn new(nftables: String, kproxy: Option<String>) -> Self {
        Self::Each(SeeEach { nftables, iptables: None, kproxy })
    }

    /// What a proxy must show.
    pub(super) fn on(&self, who: Who) -> &str {
        match self {
            Self::All(all) => all,
            Self::Each(each) => {
                let other = match who {
                    Who::Kproxy => &each.kproxy,
                    Who::Nftables => &None,
                    Who::Iptables => &each.iptables,
                };
                other.as_ref().unwrap_or(&each.nftables)
            }
        }
    }

    /// kproxy differs on purpose.
    pub(super) fn differs_on_purpose(&self) -> bool {
        self.on(Who::Kproxy) != self.on(Who::Nftables)
    }

    fn names_iptables(&self) -> bool {
        matches!(self, Self::Each(SeeEach { iptables: Some(_), .. }))
    }
}

/// Which proxy a case is played on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Who {
    /// kproxy.
    Kproxy,
    /// The real kube-proxy, nftables mode.
    Nftables,
    /// The real kube-proxy, iptables mode.
    Iptables,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kproxy => "kproxy",
            Self::Nftables => "kube-proxy (nftables)",
            Self::Iptables => "kube-proxy (iptables)",
        })
    }
}
