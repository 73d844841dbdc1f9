//! Kernels of Debian: from its mirrors by apt, unpacked in the cache, never installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use kproxy_build::cache_dir;

use crate::{run, say};

/// The word for the newest one there is.
pub(super) const NEWEST: &str = "newest";
/// Where kernels are looked for. What a mirror does not have is passed over.
const SUITES: [&str; 9] = [
    "bullseye",
    "bullseye-security",
    "bookworm",
    "bookworm-security",
    "bookworm-backports",
    "trixie",
    "trixie-security",
    "trixie-backports",
    "sid",
];
/// The flavour for virtual machines: few drivers, so it is small.
const FLAVOUR: &str = "-cloud-amd64";
/// What the archives are signed with.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A kernel in the cache.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    /// Major and minor version, as in the file of budgets.
    pub(super) series: String,
    /// What `uname -r` says.
    pub(super) release: String,
    /// What QEMU boots.
    pub(super) image: PathBuf,
    /// Folder of its modules, named by the release.
    pub(super) modules: PathBuf,
}

/// Folder of what this command keeps.
///
/// # Errors
/// No cache folder is known.
pub(super) fn folder() -> Result<PathBuf> {
    let cache = cache_dir().context("no cache folder: set HOME or KPROXY_CACHE")?;
    Ok(cache.join("kernels"))
}

/// A package and its version.
type Package = (String, String);

/// An apt with lists and settings of its own: the system's is only read.
#[derive(Debug)]
pub(super) struct Debian {
    folder: PathBuf,
    offered: Vec<Package>,
    /// Held as long as the folder is worked on: one command at a time.
    _lock: fs::File,
}

impl Debian {
    /// Fetches the package lists.
    ///
    /// # Errors
    /// When this machine has no Debian apt with lists.
    pub(super) fn refresh() -> Result<Self> {
        if std::env::consts::ARCH != "x86_64" || !Path::new(KEYRING).is_file() {
            bail!("other kernels are Debian's for amd64: run this on amd64 with {KEYRING}");
        }
        let folder = folder()?;
        let apt = folder.join("apt");
        for name in ["state/lists/partial", "cache/archives/partial", "parts"] {
            fs::create_dir_all(apt.join(name)).with_context(|| format!("make {name}"))?;
        }
        let lock = fs::File::create(folder.join("lock")).context("make a lock")?;
        lock.lock().context("wait for another `cargo xtask kernels` to fetch its kernels")?;
        fs::write(apt.join("status"), "")?;
        fs::write(apt.join("sources.list"), sources()?)?;
        fs::write(apt.join("apt.conf"), settings(&apt))?;
        let debian = Self { folder, offered: Vec::new(), _lock: lock };
        say::line("fetching Debian's package lists");
        // Its status says nothing: a suite that the mirror lacks is an error.
        let _some_may_be_missing = debian.apt("apt-get").args(["-q", "update"]).output();
        let all = run::answer(debian.apt("apt-cache").arg("dumpavail")).unwrap_or_default();
        let offered = images(&all);
        if offered.is_empty() {
            bail!("apt finds no kernel: run `apt-get update`, and see that it reaches its mirror");
        }
        Ok(Self { offered, ..debian })
    }

    /// A command of apt.
    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").env("APT_CONFIG", self.folder.join("apt/apt.conf"));
        command
    }

    /// The kernel of a series such as `6.1`, or the newest one; `None`: it cannot be had.
    ///
    /// # Errors
    /// When what was fetched cannot be unpacked.
    pub(super) fn fetch(&self, series: &str) -> Result<Option<Kernel>> {
        let mut candidates: Vec<&Package> = self
            .offered
            .iter()
            .filter(|(name, _)| series == NEWEST || series_of(name).as_deref() == Some(series))
            .collect();
        // Newest first.
        candidates.sort_by(|a, b| {
            if is_newer(&a.1, &b.1) {
                std::cmp::Ordering::Less
            } else {
                std::cmp::Ordering::Greater
            }
        });
        // Lists of a mirror may name packages that it no longer has.
        for package in candidates.into_iter().take(4) {
            if let Some(kernel) = self.unpack(package)? {
                return Ok(Some(kernel));
            }
        }
        Ok(None)
    }

    fn unpack(&self, (name, version): &Package) -> Result<Option<Kernel>> {
        let series = series_of(name).with_context(|| format!("{name}: no version in its name"))?;
        let unpacked = self.folder.join(format!("{name}_{version}"));
        if let Some(kernel) = look(&unpacked, &series) {
            return Ok(Some(kernel));
        }
        say::line(format!("fetching {name} {version}"));
        let fetched = self.folder.join("fetched");
        let _none_yet = fs::remove_dir_all(&fetched);
        fs::create_dir_all(&fetched)?;
        let mut download = self.apt("apt-get");
        download.current_dir(&fetched).args(["-q", "download"]);
        download.args(self.parts(name, version).iter().map(|part| format!("{part}={version}")));
        if run::answer(&mut download).is_none() {
            say::line(format!("{name} {version} is on the mirror's lists, but cannot be had"));
            return Ok(None);
        }
        let packages: Vec<_> = fs::read_dir(&fetched)?.collect();
        for file in packages {
            let mut command = Command::new("dpkg-deb");
            command.arg("-x").arg(file?.path()).arg(fetched.join("whole"));
            run::step("unpack a kernel", &mut command)?;
        }
        // Only what is whole gets the name that is looked for.
        fs::rename(fetched.join("whole"), &unpacked)?;
        fs::remove_dir_all(&fetched)?;
        Ok(look(&unpacked, &series))
    }

    /// The packages that a kernel is divided into: since 6.17 image and modules have their own.
    fn parts(&self, name: &str, version: &str) -> Vec<String> {
        let mut show = self.apt("apt-cache");
        show.args(["show", &format!("{name}={version}")]);
        let text = run::answer(&mut show).unwrap_or_default();
        let needs = text.lines().filter_map(|line| {
            line.strip_prefix("Depends:").or_else(|| line.strip_prefix("Pre-Depends:"))
        });
        let mut parts: Vec<String> = needs
            .flat_map(|line| line.split([',', '|']))
            .filter_map(|need| need.split_whitespace().next())
            .filter(|part| {
                ["linux-binary-", "linux-modules-"].iter().any(|kind| part.starts_with(kind))
            })
            .map(str::to_owned)
            .chain([name.to_owned()])
            .collect();
        parts.sort();
        parts.dedup();
        parts
    }
}

/// The suites, by the mirrors that apt uses on this machine.
fn sources() -> Result<String> {
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "$(REPO_URI) $(CODENAME)"]);
    let targets = run::answer(&mut command).context("ask apt for its mirrors")?;
    let mirror = |security: bool| {
        let mut known = targets.lines().filter_map(|line| line.split_once(' '));
        known.find(|(_, suite)| suite.ends_with("-security") == security).map(|(uri, _)| uri)
    };
    let suites = SUITES.iter().filter_map(|suite| {
        let uri = mirror(suite.ends_with("-security"))?;
        Some(format!("deb [arch=amd64 signed-by={KEYRING}] {uri} {suite} main\n"))
    });
    Ok(suites.collect())
}

/// Settings that are read before the system's, whose hooks stay out; how it reaches its mirrors is kept.
fn settings(apt: &Path) -> String {
    let reach = run::answer(Command::new("apt-config").arg("dump")).unwrap_or_default();
    let is_kept = |line: &&str| {
        ["http", "https", "Check", "Retries"]
            .iter()
            .any(|word| line.strip_prefix("Acquire::").is_some_and(|rest| rest.starts_with(word)))
            && line.ends_with("\";")
    };
    let reach: String = reach.lines().filter(is_kept).flat_map(|line| [line, "\n"]).collect();
    let apt = apt.display();
    format!(
        "Dir::State \"{apt}/state\";\nDir::State::status \"{apt}/status\";\n\
         Dir::Cache \"{apt}/cache\";\nDir::Etc::sourcelist \"{apt}/sources.list\";\n\
         Dir::Etc::sourceparts \"{apt}/parts\";\nDir::Etc::parts \"{apt}/parts\";\n\
         Dir::Etc::main \"/dev/null\";\nDir::Etc::preferences \"/dev/null\";\n\
         Dir::Etc::preferencesparts \"{apt}/parts\";\nAcquire::Languages \"none\";\n\
         APT::Sandbox::User \"root\";\nAPT::Get::List-Cleanup \"false\";\n{reach}"
    )
}

/// The packages of kernels in the output of `apt-cache dumpavail`.
fn images(available: &str) -> Vec<Package> {
    let fields = available.split("\n\n").filter_map(|stanza| {
        let field = |key: &str| stanza.lines().find_map(|line| line.strip_prefix(key));
        Some((field("Package: ")?.to_owned(), field("Version: ")?.to_owned()))
    });
    fields.filter(|(name, _)| series_of(name).is_some()).collect()
}

/// Major and minor version of a package such as `linux-image-6.1.0-56-cloud-amd64`.
fn series_of(package: &str) -> Option<String> {
    let rest = package.strip_prefix("linux-image-")?.strip_suffix(FLAVOUR)?;
    let (version, _) = rest.split_once(['-', '+']).unwrap_or((rest, ""));
    let mut numbers = version.split('.');
    let (major, minor) = (numbers.next()?, numbers.next()?);
    let are_numbers = [major, minor].iter().all(|word| word.parse::<u8>().is_ok());
    let is_release = !rest.contains("-rt") && !rest.contains("rc");
    (are_numbers && is_release).then(|| format!("{major}.{minor}"))
}

fn is_newer(a: &str, b: &str) -> bool {
    let mut compare = Command::new("dpkg");
    compare.args(["--compare-versions", a, "gt", b]);
    compare.status().is_ok_and(|status| status.success())
}

/// An unpacked kernel.
fn look(folder: &Path, series: &str) -> Option<Kernel> {
    let first = |folder: PathBuf, start: &str| {
        let entries = fs::read_dir(folder).ok()?.flatten();
        let mut found = entries.filter(|e| e.file_name().to_string_lossy().starts_with(start));
        found.next().map(|entry| entry.path())
    };
    let modules = ["lib/modules", "usr/lib/modules"];
    let modules = modules.iter().find_map(|place| first(folder.join(place), ""))?;
    let image =
        first(folder.join("boot"), "vmlinuz").or_else(|| first(modules.clone(), "vmlinuz"))?;
    let release = modules.file_name()?.to_string_lossy().into_owned();
    Some(Kernel { series: series.to_owned(), release, image, modules })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_told_by_the_names_of_their_packages() {
        for (name, series) in [
            ("linux-image-5.10.0-46-cloud-amd64", Some("5.10")),
            ("linux-image-6.12.118+deb13-cloud-amd64", Some("6.12")),
            ("linux-image-7.3.4+deb13-cloud-amd64", Some("7.3")),
            ("linux-image-6.1.0-56-amd64", None),
            ("linux-image-cloud-amd64", None),
            ("linux-image-6.19-rc7-cloud-amd64", None),
            ("linux-headers-6.1.0-56-cloud-amd64", None),
        ] {
            assert_eq!(series_of(name).as_deref(), series, "{name}");
        }
        let available = "Package: linux-image-6.1.0-56-cloud-amd64\nVersion: 6.1.192-2\n\n\
                         Package: nftables\nVersion: 1.0.6-2\n";
        let found = ("linux-image-6.1.0-56-cloud-amd64".to_owned(), "6.1.192-2".to_owned());
        assert_eq!(images(available), [found]);
    }
}
