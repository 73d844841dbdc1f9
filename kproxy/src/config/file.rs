//! The file of `--config`: YAML or JSON.
//!
//! kube-proxy reads it strictly, and where that finds unknown or doubled fields once more without, with a notice
//! (CFG-02). Here it is read once and each such field is named.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use serde_json::Value;
use serde_saphyr::DuplicateKeyPolicy;

use super::types::{API_VERSION, KIND, KubeProxyConfiguration};

/// The file cannot be used.
#[derive(thiserror::Error, Debug)]
pub(crate) enum Error {
    /// It cannot be read.
    #[error("read {}, which --config names", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is neither YAML nor JSON.
    #[error("{} is no YAML and no JSON", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where.
        source: Box<serde_saphyr::Error>,
    },
    /// It is something else.
    #[error(
        "{} holds kind {found}: give a {KIND} of {API_VERSION} to --config", path.display()
    )]
    Kind {
        /// The file.
        path: PathBuf,
        /// What it says to be.
        found: String,
    },
    /// A field holds something else than belongs there.
    #[error("{}: {field}: {source}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The path of the field.
        field: String,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// What was read.
#[derive(Debug)]
pub(super) struct File {
    /// As it is written, without what is null.
    pub(super) written: Value,
    /// The fields that have a meaning.
    pub(super) config: KubeProxyConfiguration,
    /// What is to be told of it.
    pub(super) warnings: Vec<String>,
}

/// Reads a file.
///
/// # Errors
/// See [`Error`].
pub(super) fn read(path: &Path) -> Result<File, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| Error::Read { path: path.to_owned(), source })?;
    parse(path, &text)
}

/// Reads its text.
///
/// # Errors
/// See [`Error`].
pub(super) fn parse(path: &Path, text: &str) -> Result<File, Error> {
    let mut warnings = Vec::new();
    let (mut written, doubled) = document(text)
        .map_err(|source| Error::Syntax { path: path.to_owned(), source: Box::new(source) })?;
    if let Some(doubled) = doubled {
        let path = path.display();
        warnings.push(format!("{path}: a field is given twice, the last counts: {doubled}"));
    }
    remove_null(&mut written);
    let said = |key| written.get(key).and_then(Value::as_str).unwrap_or_default();
    if (said("kind"), said("apiVersion")) != (KIND, API_VERSION) {
        let found = format!("`{}` of `{}`", said("kind"), said("apiVersion"));
        return Err(Error::Kind { path: path.to_owned(), found });
    }
    let mut unknown = Vec::new();
    let config = typed(&written, |field| unknown.push(field))
        .map_err(|(field, source)| Error::Field { path: path.to_owned(), field, source })?;
    let path = path.display();
    warnings.extend(
        unknown.into_iter().map(|field| format!("{path}: {field}: no such field; it is ignored")),
    );
    Ok(File { written, config, warnings })
}

/// The one document of the text; and, if a field stands in it twice, where.
fn document(text: &str) -> Result<(Value, Option<String>), serde_saphyr::Error> {
    let read = |duplicate_keys| {
        // As YAML 1.2 has it: `no` and `on` are words.
        let options = serde_saphyr::options! {
            strict_booleans: true,
            with_snippet: false,
            duplicate_keys: duplicate_keys,
        };
        serde_saphyr::from_str_with_options::<Value>(text, options)
    };
    match read(DuplicateKeyPolicy::Error) {
        Ok(value) => Ok((value, None)),
        Err(error) => match read(DuplicateKeyPolicy::LastWins) {
            Ok(value) => Ok((value, Some(error.to_string()))),
            Err(_) => Err(error),
        },
    }
}

/// Null is "not given", as for Go.
fn remove_null(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.retain(|_, field| !field.is_null());
        fields.values_mut().for_each(remove_null);
    }
}

/// The type of it; `unknown` is told the paths that it does not have.
///
/// # Errors
/// The path of a field that holds something else, and what is wrong.
pub(super) fn typed(
    value: &Value,
    mut unknown: impl FnMut(String),
) -> Result<KubeProxyConfiguration, (String, serde_json::Error)> {
    let mut track = serde_path_to_error::Track::new();
    let value = serde_path_to_error::Deserializer::new(value, &mut track);
    let mut told = |path: serde_ignored::Path<'_>| unknown(path.to_string());
    let value = serde_ignored::Deserializer::new(value, &mut told);
    KubeProxyConfiguration::deserialize(value).map_err(|error| (track.path().to_string(), error))
}
