//! What the distribution's package manager has and offers.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use crate::run;

/// State of the packages that set-up may ask for.
#[derive(Debug, Default)]
pub(crate) struct Apt {
    installed: BTreeSet<String>,
    offered: BTreeMap<String, String>,
}

impl Apt {
    /// Asks apt about `packages`; `None` on distributions without it.
    pub(crate) fn query(packages: &[&str]) -> Option<Self> {
        let mut command = Command::new("apt-cache");
        command.env("LC_ALL", "C").arg("policy").args(packages);
        Some(Self::parse(&run::answer(&mut command)?))
    }

    /// Reads the output of `apt-cache policy`.
    fn parse(policy: &str) -> Self {
        let mut apt = Self::default();
        let mut package = String::new();
        for line in policy.lines() {
            if let Some(name) = line.strip_suffix(':').filter(|name| !name.starts_with(' ')) {
                package = name.to_owned();
            }
            let value = |key: &str| {
                let text = line.trim().strip_prefix(key)?.trim();
                (text != "(none)").then(|| text.to_owned())
            };
            if value("Installed:").is_some() {
                apt.installed.insert(package.clone());
            }
            if let Some(version) = value("Candidate:") {
                apt.offered.insert(package.clone(), version);
            }
        }
        apt
    }

    /// The package is installed.
    pub(crate) fn has(&self, package: &str) -> bool {
        self.installed.contains(package)
    }

    /// The package is installed or can be.
    pub(crate) fn offers(&self, package: &str) -> bool {
        self.offered.contains_key(package)
    }

    /// Nothing is on offer that is not installed: the lists were never fetched.
    pub(crate) fn is_empty(&self) -> bool {
        self.offered.keys().all(|package| self.installed.contains(package))
    }
}

#[cfg(test)]
impl Apt {
    /// Offers these packages; none is installed.
    pub(crate) fn offering(packages: &[&str]) -> Self {
        let offered = packages.iter().map(|&name| (name.to_owned(), "1".to_owned())).collect();
        Self { installed: BTreeSet::new(), offered }
    }
}

/// `apt-get update`.
pub(crate) fn update() -> Command {
    let mut command = Command::new("apt-get");
    command.args(["update", "-q"]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "\
nftables:
  Installed: 1.0.6-2+deb12u2
  Candidate: 1.0.6-2+deb12u2
  Version table:
 *** 1.0.6-2+deb12u2 500
etcd-server:
  Installed: (none)
  Candidate: 3.4.23-4+b4
llvm-99-dev:
  Installed: (none)
  Candidate: (none)
";

    #[test]
    fn installed_offered_and_unknown_packages_are_told_apart() {
        let apt = Apt::parse(POLICY);
        assert!(apt.has("nftables") && apt.offers("nftables"));
        assert!(!apt.has("etcd-server") && apt.offers("etcd-server"));
        assert!(!apt.has("llvm-99-dev") && !apt.offers("llvm-99-dev"));
        assert!(!apt.is_empty());
        assert!(Apt::parse("").is_empty());
    }
}
