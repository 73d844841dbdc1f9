//! `deny.toml`: those of cargo-deny's settings that the rules know. Another one is an error, so that none is
//! taken for checked that is not.

use serde::Deserialize;

/// The whole file.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    pub(super) graph: Targets,
    pub(super) licenses: Licenses,
    pub(super) bans: Bans,
    pub(super) sources: Sources,
}

/// Which dependencies count.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Targets {
    pub(super) targets: Vec<String>,
}

/// Licences that one must be able to choose.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Licenses {
    pub(super) allow: Vec<String>,
}

/// Whether something is a finding.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Deny,
    Allow,
}

/// Which versions there may be.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Bans {
    pub(super) multiple_versions: Level,
    pub(super) wildcards: Level,
    #[serde(default)]
    pub(super) allow_wildcard_paths: bool,
    /// Those that must not be there at all.
    #[serde(default)]
    pub(super) deny: Vec<Named>,
    /// Those that may be there beside another version.
    #[serde(default)]
    pub(super) skip: Vec<Named>,
}

/// A crate, and why.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    /// `name` or `name@requirement`.
    #[serde(rename = "crate")]
    pub(super) krate: String,
    pub(super) reason: String,
}

/// Where crates may come from.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Sources {
    pub(super) unknown_registry: Level,
    pub(super) unknown_git: Level,
    pub(super) allow_registry: Vec<String>,
    pub(super) allow_git: Vec<String>,
}
