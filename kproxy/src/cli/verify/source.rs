//! Where the plan comes from.

use crate::daemon::Settings;
use crate::daemon::fresh::Fresh;
use crate::dataplane::read::Pins;
use crate::errors::with_causes;

/// Where the plan comes from.
pub(super) enum Plan {
    /// Here.
    Read { fresh: Box<Fresh>, settings: Box<Settings> },
    /// It cannot be had.
    Failed(String),
    /// It is not asked for, or nobody knows where from.
    None,
}

impl Plan {
    pub(super) fn of(settings: Option<Settings>, pins: &Pins) -> Self {
        let Some(settings) = settings else { return Self::None };
        match Fresh::read(settings.clone(), pins.served()) {
            Ok(fresh) => Self::Read { fresh: fresh.into(), settings: settings.into() },
            Err(error) => Self::Failed(with_causes(&error)),
        }
    }

    /// Why there is none.
    pub(super) fn why_not(&self) -> &str {
        match self {
            Self::Failed(error) => error,
            _ => {
                "name the source with the options of `kproxy run` (--manifests, --kubeconfig, --config)"
            }
        }
    }
}
