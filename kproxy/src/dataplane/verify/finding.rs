//! One thing that differs.

use std::net::{IpAddr, SocketAddr};

use kproxy_common::{
    net::{Addr, Port},
    service::FrontendKey,
};
use serde::Serialize;

use crate::{
    dataplane::read::name_opt,
    plan::{Family, Protocol, ServicePortId},
};

/// What kind of thing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// A service port as a whole.
    Service,
    /// What clients dial.
    Frontend,
    /// One of the two sets of a service port.
    Set,
    /// A backend of a set.
    Backend,
    /// How backends are picked.
    Algorithm,
    /// Session affinity.
    Affinity,
    /// A source range.
    SourceRange,
    /// What is known of an address as a whole.
    Address,
    /// The address filter.
    Filter,
    /// What the programs are told.
    Setting,
    /// A program that is attached.
    Hook,
}

impl Kind {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Frontend => "frontend",
            Self::Set => "set",
            Self::Backend => "backend",
            Self::Algorithm => "algorithm",
            Self::Affinity => "affinity",
            Self::SourceRange => "source range",
            Self::Address => "address",
            Self::Filter => "address filter",
            Self::Setting => "setting",
            Self::Hook => "hook",
        }
    }
}

/// One thing that differs, or contradicts something else. The JSON keys are promised in `docs/cli.md`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub(crate) struct Finding {
    /// Its service port, if it is of one.
    #[serde(serialize_with = "name_opt")]
    pub service: Option<ServicePortId>,
    /// Its kind.
    pub kind: Kind,
    /// Which: an address and port, the name of a setting. Empty where the service port says it.
    pub object: String,
    /// What is planned; `None`: nothing.
    pub planned: Option<String>,
    /// What the kernel has; `None`: nothing.
    pub kernel: Option<String>,
    /// What contradicts itself, whatever is planned.
    pub contradiction: Option<String>,
}

impl Finding {
    /// Of two that should be the same.
    pub(super) fn differs(
        kind: Kind,
        object: impl Into<String>,
        planned: Option<String>,
        kernel: Option<String>,
    ) -> Self {
        let object = object.into();
        Self { service: None, kind, object, planned, kernel, contradiction: None }
    }

    /// Of the maps alone.
    pub(crate) fn contradicts(
        kind: Kind,
        object: impl Into<String>,
        contradiction: impl Into<String>,
    ) -> Self {
        let contradiction = Some(contradiction.into());
        Self { contradiction, ..Self::differs(kind, object, None, None) }
    }

    /// The same of a service port.
    pub(super) fn of(self, service: &ServicePortId) -> Self {
        Self { service: Some(service.clone()), ..self }
    }

    /// One sentence.
    pub(crate) fn text(&self) -> String {
        let mut text = self.kind.word().to_owned();
        if !self.object.is_empty() {
            text = format!("{text} {}", self.object);
        }
        match &self.service {
            // A frontend says by itself whose it is.
            Some(service) if !matches!(self.kind, Kind::Service | Kind::Frontend) => {
                text = format!("{text} of {service}");
            }
            _ => {}
        }
        let (planned, kernel) = (self.planned.as_deref(), self.kernel.as_deref());
        match (&self.contradiction, self.kind, planned, kernel) {
            (Some(contradiction), ..) => format!("{text}: {contradiction}"),
            (None, Kind::Hook, Some(planned), None) => format!("{text}: planned {planned}, is not"),
            (None, Kind::Hook, None, Some(kernel)) => format!("{text}: is {kernel}, not planned"),
            (None, kind, planned, kernel) => {
                let planned = planned.unwrap_or("none");
                let it = if kind == Kind::Backend && kernel.is_some() { "it " } else { "" };
                let kernel = kernel.unwrap_or("none");
                format!("{text}: planned {planned}, the kernel has {it}{kernel}")
            }
        }
    }
}

/// `10.96.0.1:443/TCP`, `NodePort 30080/TCP (IPv4)`.
pub(super) fn frontend(key: &FrontendKey) -> String {
    let protocol = Protocol::from_number(key.proto).map_or("?", Protocol::name);
    let addr = IpAddr::from(key.addr);
    if addr.is_unspecified() {
        let family = Family::of(&addr).number();
        return format!("NodePort {}/{protocol} (IPv{family})", key.port.get());
    }
    format!("{}/{protocol}", SocketAddr::new(addr, key.port.get()))
}

/// An address and port.
pub(super) fn endpoint(addr: Addr, port: Port) -> String {
    SocketAddr::new(addr.into(), port.get()).to_string()
}
