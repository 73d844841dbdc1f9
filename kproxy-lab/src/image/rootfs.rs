//! What kproxy runs and needs of the distribution: nft and iptables, and the libraries of all.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::binary;

/// The program that takes packages apart into a tar file.
const TOOL: &str = "mmdebstrap";
/// What is in it, with all that they depend on.
const PACKAGES: &str = "nftables,iptables,libgcc-s1";
/// Files that nobody reads in a container.
const LEFT_OUT: [&str; 3] = ["usr/share/doc", "usr/share/man", "usr/share/locale"];

/// The tar file: in the cache if `cached` will do, or made now. Of the release that runs here, so that the libraries
/// fit the program.
pub(super) fn of(arch: &str, cached: bool) -> Result<PathBuf> {
    let release = release()?;
    let folder = kproxy_build::cache_dir().context("find the cache folder: set HOME")?;
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    // With the packages in the name: what was made of others does not fit.
    let name = format!("rootfs-{release}-{arch}-{}", PACKAGES.replace(',', "-"));
    let result = folder.join(format!("{name}.tar"));
    if cached && result.is_file() {
        return Ok(result);
    }
    let tool = binary::in_path(TOOL).with_context(|| format!("find {TOOL}: install it"))?;
    let draft = tempfile::Builder::new()
        .prefix(&name)
        .suffix(".tar")
        .tempfile_in(&folder)
        .with_context(|| format!("make a file in {}", folder.display()))?;
    // Nothing of the packages is run, so that any processor's can be taken apart.
    let mut command = Command::new(tool);
    command.args(["--quiet", "--variant=extract", "--format=tar"]);
    command.args([&format!("--include={PACKAGES}"), &format!("--architectures={}", arch)]);
    for path in LEFT_OUT {
        command.arg(format!("--customize-hook=rm -rf \"$1\"/{path}"));
    }
    let output = command.arg(&release).arg(draft.path()).output().context("run mmdebstrap")?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        bail!("take the packages {PACKAGES} of {release} apart: {TOOL} says: {}", message.trim());
    }
    draft.persist(&result).with_context(|| format!("make {}", result.display()))?;
    Ok(result)
}

/// Code name of the distribution's release, as its package archive has it.
fn release() -> Result<String> {
    /// os-release(5).
    const FILE: &str = "/etc/os-release";
    let text = fs::read_to_string(FILE).with_context(|| format!("read {FILE}"))?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(name
        .with_context(|| format!("{FILE} has no VERSION_CODENAME"))?
        .trim_matches('"')
        .to_owned())
}
