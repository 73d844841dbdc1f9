//! Who is opted out of the socket path, as the daemon was told: its run folder holds it for `kproxy
//! status`.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::plan::OptOut;

/// The file's form, a JSON object.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Written {
    /// Ranges of pod addresses.
    pub pod_cidrs: Vec<String>,
    /// Kubernetes namespaces.
    pub namespaces: BTreeSet<String>,
}

/// Where it is.
pub fn path(run_dir: &Path) -> PathBuf {
    run_dir.join("opt-out.json")
}

/// Writes it, or removes it where nobody is opted out.
///
/// # Errors
/// The file cannot be written.
pub fn write(run_dir: &Path, opt_out: &OptOut) -> Result<()> {
    let path = path(run_dir);
    let written = if opt_out.is_empty() {
        fs::remove_file(&path).or_else(|error| match error.kind() {
            ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })
    } else {
        let pod_cidrs = opt_out.ranges.iter().map(ToString::to_string).collect();
        let namespaces = opt_out.namespaces.clone();
        fs::write(&path, serde_json::to_vec(&Written { pod_cidrs, namespaces })?)
    };
    written.with_context(|| format!("write {}; give another --run-dir", path.display()))
}

/// Reads it; nobody is opted out where it is missing.
///
/// # Errors
/// The file cannot be read or understood.
pub fn read(run_dir: &Path) -> Result<Written> {
    let path = path(run_dir);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| {
            format!(
                "{} cannot be understood; restart kproxy to have it written anew",
                path.display()
            )
        }),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(Written::default())
        }
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_is_written_and_gone_when_nobody_is_opted_out() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), Written::default());
        let ranges = vec!["10.244.7.0/24".parse().unwrap()];
        let opt_out = OptOut { ranges, namespaces: ["mesh".to_owned()].into() };
        write(dir.path(), &opt_out).unwrap();
        let there = read(dir.path()).unwrap();
        assert_eq!(there.pod_cidrs, ["10.244.7.0/24"]);
        assert_eq!(there.namespaces, opt_out.namespaces);
        write(dir.path(), &OptOut::default()).unwrap();
        write(dir.path(), &OptOut::default()).unwrap();
        assert!(!path(dir.path()).exists());
        fs::write(path(dir.path()), "{").unwrap();
        assert!(read(dir.path()).is_err());
    }
}
