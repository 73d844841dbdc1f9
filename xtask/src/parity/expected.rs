//! What must be seen, on which proxy.

use std::fmt;

use serde::Deserialize;

/// What must be seen, as [`super::words`] writes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Expected {
    /// On every proxy.
    All(String),
    /// On each.
    Each(Each),
}

/// What must be seen where the proxies differ.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Each {
    /// kube-proxy, nftables mode.
    nftables: String,
    /// kube-proxy, iptables mode, where the case is played on it.
    iptables: Option<String>,
    /// kproxy, if it differs from nftables on purpose.
    kproxy: Option<String>,
}

impl Expected {
    /// A look whose result on kproxy differs on purpose if `kproxy` is given.
    pub(super) const fn new(nftables: String, kproxy: Option<String>) -> Self {
        Self::Each(Each { nftables, iptables: None, kproxy })
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

    /// It says what is seen in kube-proxy's iptables mode.
    pub(super) fn names_iptables(&self) -> bool {
        matches!(self, Self::Each(Each { iptables: Some(_), .. }))
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
