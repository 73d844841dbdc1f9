//! kube-proxy's configuration: what is in force, out of flags, a file and defaults.
//!
//! ```text
//! defaults ◀ file (--config) ◀ flags ─▶ validation ─▶ KubeProxyConfiguration, sources, warnings
//! ```
//!
//! Flags come before the file, also those that kube-proxy does not look at when there is a file (CFG-01).

mod defaults;
mod duration;
mod file;
pub(crate) mod flags;
mod meaning;
#[cfg(test)]
mod tests;
mod types;
mod validation;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub(crate) use duration::GoDuration;
pub(crate) use meaning::why_without;
pub(crate) use types::{Conntrack, KubeProxyConfiguration};

use flags::{Kind, Typed};
use validation::Invalid;

/// What is in force.
#[derive(Debug)]
pub(crate) struct InForce {
    /// All of it.
    pub(crate) config: KubeProxyConfiguration,
    /// Where the value of each field comes from, by path.
    pub(crate) sources: BTreeMap<String, Source>,
    /// What is to be told, one line each.
    pub(crate) warnings: Vec<String>,
}

/// Where a value comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// Nobody has said anything.
    Default,
    /// The file.
    File(PathBuf),
    /// This flag.
    Flag(&'static str),
}

/// The configuration cannot be used.
#[derive(thiserror::Error, Debug)]
pub(crate) enum Error {
    /// The file cannot.
    #[error(transparent)]
    File(#[from] file::Error),
    /// A flag cannot.
    #[error("--{flag} {value}: {why}")]
    Flag {
        /// Its name.
        flag: &'static str,
        /// What was typed.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// Fields cannot.
    #[error("{0}")]
    Invalid(String),
}

/// Puts together what is in force.
///
/// # Errors
/// The file cannot be read, or a value cannot be used; every such value is named.
pub(crate) fn resolve(file: Option<&Path>, flags: &[Typed]) -> Result<InForce, Error> {
    let file = file.map(|path| file::read(path).map(|read| (path, read))).transpose()?;
    put_together(file, flags)
}

fn put_together(file: Option<(&Path, file::File)>, flags: &[Typed]) -> Result<InForce, Error> {
    let mut warnings = Vec::new();
    let mut sources = BTreeMap::new();
    let (mut config, mut in_file) = (KubeProxyConfiguration::default(), None);
    if let Some((path, file::File { written, config: read, warnings: told })) = file {
        warnings = told;
        in_file = Some((path, written, value_of(&read)));
        config = read;
    }
    defaults::fill(&mut config);
    let mut all = value_of(&config);
    for path in leaves(&all) {
        // Zero and empty of the file count as not given where a default has come in their place.
        let source = match &in_file {
            Some((file, written, read))
                if at(written, &path).is_some() && at(read, &path) == at(&all, &path) =>
            {
                Source::File(file.to_path_buf())
            }
            _ => Source::Default,
        };
        sources.insert(path, source);
    }
    for typed in flags.iter().filter(|typed| !typed.says_nothing()) {
        apply(&mut all, typed, flags)?;
        if typed.flag.kind == Kind::Port {
            let name = typed.flag.name.trim_end_matches("-port");
            warnings.push(format!("--{name}-port is deprecated: give --{name}-bind-address"));
        }
        sources.insert(typed.flag.path.to_owned(), Source::Flag(typed.flag.name));
    }
    let mut config = file::typed(&all, |_| {})
        .map_err(|(path, error)| Error::Invalid(format!("{}: {error}", named(&path, &sources))))?;
    defaults::fill_by_mode(&mut config);

    let invalid = validation::validate(&config);
    if !invalid.is_empty() {
        let told = |Invalid { path, value, rule }: &Invalid| {
            format!("{}: {value}: {rule}", named(path, &sources))
        };
        return Err(Error::Invalid(invalid.iter().map(told).collect::<Vec<_>>().join("; ")));
    }
    warnings.extend(without_meaning(&value_of(&config), &sources));
    for name in config.feature_gates.keys().filter(|name| !meaning::knows_gate(name)) {
        let name_of = named("featureGates", &sources);
        warnings
            .push(format!("{name_of}: {name}: Kubernetes has no such feature gate; it is ignored"));
    }
    Ok(InForce { config, sources, warnings })
}

/// Puts what was typed in its place.
fn apply(all: &mut Value, Typed { flag, values }: &Typed, flags: &[Typed]) -> Result<(), Error> {
    let place = at_mut(all, flag.path);
    for (index, text) in values.iter().enumerate() {
        let wrong = |why| Error::Flag { flag: flag.name, value: text.clone(), why };
        match (flag.kind, flag.kind.parse(text).map_err(wrong)?) {
            // A list replaces the file's; what is typed again is added.
            (Kind::List(_) | Kind::Vmodule, Value::Array(items)) if index > 0 => {
                place.as_array_mut().into_iter().for_each(|place| place.extend(items.clone()));
            }
            (Kind::Gates, Value::Object(gates)) => {
                place.as_object_mut().into_iter().for_each(|place| place.extend(gates.clone()));
            }
            (Kind::Port, port) => {
                let port = port.as_u64().and_then(|port| u16::try_from(port).ok());
                let port = port.ok_or_else(|| wrong(format!("`{text}` is no port")))?;
                let has_port = flags.iter().any(|typed| {
                    let given = |text: &String| text.parse::<SocketAddr>().is_ok();
                    typed.flag.path == flag.path
                        && matches!(typed.flag.kind, Kind::Address(_))
                        && typed.values.last().is_some_and(given)
                });
                if port == 0 {
                    *place = "".into();
                } else if !has_port {
                    let address = place.as_str().and_then(|text| text.parse::<SocketAddr>().ok());
                    let address = address.map(|address| SocketAddr::new(address.ip(), port));
                    *place = address.map_or_else(String::new, |a| a.to_string()).into();
                }
            }
            (_, value) => *place = value,
        }
    }
    Ok(())
}

/// A field by its path, with who has given it.
fn named(path: &str, sources: &BTreeMap<String, Source>) -> String {
    let field = path.split('[').next().unwrap_or(path);
    match sources.get(field) {
        Some(Source::Flag(flag)) => format!("{path} (--{flag})"),
        Some(Source::File(file)) => format!("{path} ({})", file.display()),
        Some(Source::Default) | None => path.to_owned(),
    }
}

/// A line for each field that was given, changes nothing, and is not what holds without it.
fn without_meaning(all: &Value, sources: &BTreeMap<String, Source>) -> Vec<String> {
    let defaults = value_of(&KubeProxyConfiguration::defaults());
    let given = sources.iter().filter(|(_, source)| **source != Source::Default);
    given
        .filter(|(path, _)| at(all, path) != at(&defaults, path))
        .filter_map(|(path, _)| {
            let why = why_without(path)?;
            let value = at(all, path).map(shown).unwrap_or_default();
            Some(format!("{}: {value} changes nothing here: {why}", named(path, sources)))
        })
        .collect()
}

/// A value as it is shown to people.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(","),
        Value::Object(fields) => {
            let pair = |(name, value): (&String, &Value)| format!("{name}={}", shown(value));
            fields.iter().map(pair).collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    }
}

impl InForce {
    /// Every field with its value, by path.
    pub(crate) fn fields(&self) -> Vec<(String, Value, Source)> {
        let all = value_of(&self.config);
        let field = |path: String| {
            let source = self.sources.get(&path).cloned().unwrap_or(Source::Default);
            let value = at(&all, &path).cloned().unwrap_or_default();
            (path, value, source)
        };
        leaves(&all).into_iter().map(field).collect()
    }
}

/// What holds for a field that nobody says anything of.
pub(crate) fn default_of(path: &str) -> String {
    at(&value_of(&KubeProxyConfiguration::defaults()), path).map(shown).unwrap_or_default()
}

fn value_of(config: &KubeProxyConfiguration) -> Value {
    // Texts, numbers and maps by text: JSON has all of them.
    serde_json::to_value(config).unwrap_or_default()
}

fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, key| value.get(key))
}

fn at_mut<'a>(value: &'a mut Value, path: &str) -> &'a mut Value {
    path.split('.').fold(value, |value, key| &mut value[key])
}

/// The paths of all fields; what has names of its own or is a list is one field.
fn leaves(value: &Value) -> Vec<String> {
    fn walk(value: &Value, path: &str, leaves: &mut Vec<String>) {
        match value {
            Value::Object(fields) if path != "featureGates" => {
                for (name, field) in fields {
                    let dot = if path.is_empty() { "" } else { "." };
                    walk(field, &format!("{path}{dot}{name}"), leaves);
                }
            }
            _ => leaves.push(path.to_owned()),
        }
    }
    let mut leaves = Vec::new();
    walk(value, "", &mut leaves);
    leaves.retain(|path| path != "kind" && path != "apiVersion");
    leaves
}
