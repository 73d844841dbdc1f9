//! The rules: one function each.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use cargo_metadata::semver::{Version, VersionReq};
use spdx::{Expression, Licensee, ParseMode};

use super::settings::{Bans, Level, Licenses, Named, Settings, Sources};

/// What one manifest depends on.
pub(super) struct Graph {
    pub(super) manifest: String,
    pub(super) packages: Vec<Package>,
}

/// One crate.
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: Version,
    pub(super) license: Option<String>,
    /// `None`: a folder.
    pub(super) source: Option<String>,
    /// Dependencies of any version, and whether they are folders.
    pub(super) wildcards: Vec<(String, bool)>,
}

/// All findings.
///
/// # Errors
/// A setting cannot be understood.
pub(super) fn check(settings: &Settings, graphs: &[Graph]) -> Result<Vec<String>> {
    let skipped = specs(&settings.bans.skip)?;
    let banned = specs(&settings.bans.deny)?;
    let mut findings = BTreeSet::new();
    for Graph { manifest, packages } in graphs {
        let mut found = licences(&settings.licenses, packages)?;
        found.extend(sources(&settings.sources, packages));
        found.extend(wildcards(&settings.bans, packages));
        let is_banned = |package: &&Package| banned.iter().any(|spec| spec.matches(package));
        let named = |package: &Package| format!("{} is banned", package.title());
        found.extend(packages.iter().filter(is_banned).map(named));
        if settings.bans.multiple_versions == Level::Deny {
            found.extend(duplicates(packages, &skipped));
        }
        findings.extend(found.into_iter().map(|finding| format!("{manifest}: {finding}")));
    }
    let all = || graphs.iter().flat_map(|graph| &graph.packages);
    let useless = |spec: &&Spec<'_>| !all().any(|package| spec.matches(package));
    findings.extend(
        skipped
            .iter()
            .filter(useless)
            .map(|spec| format!("deny.toml: no {} is used any more", spec.text)),
    );
    Ok(findings.into_iter().collect())
}

impl Package {
    fn title(&self) -> String {
        format!("{} {}", self.name, self.version)
    }
}

/// A crate as `deny.toml` names it.
struct Spec<'a> {
    text: &'a str,
    name: &'a str,
    version: VersionReq,
}

impl Spec<'_> {
    fn matches(&self, package: &Package) -> bool {
        self.name == package.name && self.version.matches(&package.version)
    }
}

fn specs<'a>(named: &'a [Named]) -> Result<Vec<Spec<'a>>> {
    let spec = |Named { krate: text, reason }: &'a Named| {
        ensure!(!reason.is_empty(), "deny.toml: {text} has no reason");
        let (name, version) = text.split_once('@').unwrap_or((text, "*"));
        let version = version.parse().with_context(|| format!("deny.toml: {text}"))?;
        Ok(Spec { text, name, version })
    };
    named.iter().map(spec).collect()
}

fn licences(settings: &Licenses, packages: &[Package]) -> Result<Vec<String>> {
    let allowed = settings.allow.iter().map(|name| {
        Licensee::parse(name).with_context(|| format!("deny.toml: the licence {name}"))
    });
    let allowed = allowed.collect::<Result<Vec<_>>>()?;
    let finding = |package: &Package| {
        let title = package.title();
        let Some(text) = &package.license else { return Some(format!("{title} names no licence")) };
        match Expression::parse_mode(text, ParseMode::LAX) {
            Err(error) => Some(format!("{title}: the licence {text}: {}", error.reason)),
            Ok(expression) => (!expression
                .evaluate(|wanted| allowed.iter().any(|one| one.satisfies(wanted))))
            .then(|| format!("{title}: the licence {text} is not allowed")),
        }
    };
    Ok(packages.iter().filter_map(finding).collect())
}

fn sources(settings: &Sources, packages: &[Package]) -> Vec<String> {
    let is_known = |source: &str| {
        let (kind, url) = source.split_once('+').unwrap_or(("", source));
        let (level, known) = match kind {
            "git" => (settings.unknown_git, &settings.allow_git),
            _ => (settings.unknown_registry, &settings.allow_registry),
        };
        // What comes behind a git address is the branch and the commit.
        let url = url.split(['?', '#']).next().unwrap_or(url);
        level == Level::Allow || known.iter().any(|one| one == url)
    };
    let from = |package: &Package| {
        let source = package.source.as_ref().filter(|source| !is_known(source))?;
        Some(format!("{} comes from {source}", package.title()))
    };
    packages.iter().filter_map(from).collect()
}

/// Of our own crates: those of others are as they were published.
fn wildcards(bans: &Bans, packages: &[Package]) -> Vec<String> {
    if bans.wildcards == Level::Allow {
        return Vec::new();
    }
    let own = packages.iter().filter(|package| package.source.is_none());
    own.flat_map(|package| {
        let counts = |(_, is_path): &&(String, bool)| !(*is_path && bans.allow_wildcard_paths);
        let told =
            |(name, _): &(String, bool)| format!("{} takes any version of {name}", package.name);
        package.wildcards.iter().filter(counts).map(told).collect::<Vec<_>>()
    })
    .collect()
}

fn duplicates(packages: &[Package], skipped: &[Spec<'_>]) -> Vec<String> {
    let mut versions: BTreeMap<&str, BTreeSet<&Version>> = BTreeMap::new();
    for package in packages {
        if !skipped.iter().any(|spec| spec.matches(package)) {
            versions.entry(&package.name).or_default().insert(&package.version);
        }
    }
    let several = versions.into_iter().filter(|(_, versions)| versions.len() > 1);
    several
        .map(|(name, versions)| {
            let all: Vec<_> = versions.iter().map(ToString::to_string).collect();
            format!("{name} is there in several versions: {}", all.join(", "))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: &str = r#"
        graph = { targets = ["x86_64-unknown-linux-gnu"] }
        licenses = { allow = ["MIT", "Apache-2.0 WITH LLVM-exception"] }
        sources = { unknown-registry = "deny", unknown-git = "deny", allow-registry = ["https://a"], allow-git = ["https://g/x"] }
        [bans]
        multiple-versions = "deny"
        wildcards = "deny"
        allow-wildcard-paths = true
        deny = [{ crate = "bad", reason = "it is bad" }]
        skip = [{ crate = "old@1", reason = "another wants it" }]
    "#;

    fn package(name: &str, version: &str, license: &str, source: &str) -> Package {
        Package {
            name: name.to_owned(),
            version: version.parse().unwrap(),
            license: Some(license.to_owned()).filter(|license| !license.is_empty()),
            source: Some(source.to_owned()).filter(|source| !source.is_empty()),
            wildcards: Vec::new(),
        }
    }

    fn findings(mut packages: Vec<Package>) -> Vec<String> {
        packages.push(package("old", "1.4.0", "MIT", ""));
        let graph = Graph { manifest: "m".to_owned(), packages };
        check(&toml::from_str(SETTINGS).unwrap(), &[graph]).unwrap()
    }

    #[test]
    fn each_rule_finds_what_breaks_it_and_nothing_else() {
        const A: &str = "registry+https://a";
        for (packages, wanted) in [
            (vec![("a", "1.0.0", "MIT OR GPL-3.0", A)], None),
            (vec![("a", "1.0.0", "MIT/Apache-2.0", A)], None),
            (vec![("a", "1.0.0", "Apache-2.0 WITH LLVM-exception", A)], None),
            (
                vec![("a", "1.0.0", "Apache-2.0", A)],
                Some("a 1.0.0: the licence Apache-2.0 is not allowed"),
            ),
            (vec![("a", "1.0.0", "MIT AND GPL-2.0-only", A)], Some("is not allowed")),
            (vec![("a", "1.0.0", "whatever", A)], Some("a 1.0.0: the licence whatever")),
            (vec![("a", "1.0.0", "", A)], Some("names no licence")),
            (
                vec![("a", "1.0.0", "MIT", "registry+https://b")],
                Some("comes from registry+https://b"),
            ),
            (vec![("a", "1.0.0", "MIT", "git+https://g/x?branch=m#12")], None),
            (
                vec![("a", "1.0.0", "MIT", "git+https://g/y#12")],
                Some("comes from git+https://g/y#12"),
            ),
            (vec![("bad", "0.1.0", "MIT", A)], Some("bad 0.1.0 is banned")),
            (
                vec![("a", "1.0.0", "MIT", A), ("a", "2.0.0", "MIT", A)],
                Some("several versions: 1.0.0, 2.0.0"),
            ),
            (vec![("old", "2.0.0", "MIT", A)], None),
            (vec![("old", "2.0.0", "MIT", A), ("old", "3.0.0", "MIT", A)], Some("old is there")),
        ] {
            let packages = packages.iter().map(|(n, v, l, s)| package(n, v, l, s)).collect();
            let found = findings(packages);
            assert_eq!(found.len(), usize::from(wanted.is_some()), "{found:?}, wanted {wanted:?}");
            assert!(
                wanted.is_none_or(|wanted| found[0].contains(wanted)),
                "{found:?}, wanted {wanted:?}"
            );
        }
    }

    #[test]
    fn any_version_is_for_folders_of_our_own() {
        let mut own = package("own", "0.1.0", "MIT", "");
        own.wildcards = vec![("beside".to_owned(), true), ("other".to_owned(), false)];
        assert_eq!(findings(vec![own]), ["m: own takes any version of other"]);
    }

    #[test]
    fn what_deny_toml_names_in_vain_is_a_finding() {
        let found = check(&toml::from_str(SETTINGS).unwrap(), &[]).unwrap();
        assert_eq!(found, ["deny.toml: no old@1 is used any more"]);
        assert!(toml::from_str::<Settings>(&format!("{SETTINGS}\nhighlight = \"all\"")).is_err());
    }
}
