//! kproxy's image as an OCI archive, made without a container engine: what `ctr images import`, `podman load`
//! and registries' tools take (<https://github.com/opencontainers/image-spec>).

mod archive;
mod rootfs;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use oci_spec::image::Arch;

use archive::Archive;

/// An image to be written.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its name, such as `kproxy:0.1.0`.
    pub name: String,
    /// The program.
    pub binary: PathBuf,
    /// The processor that it is built for.
    pub arch: Architecture,
    /// Whether packages of the distribution from an earlier time will do.
    pub cached: bool,
}

/// A processor that images are made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Architecture {
    /// `x86_64`, which Go, Debian and images call amd64.
    Amd64,
    /// `aarch64`, which they call arm64.
    Arm64,
}

impl Architecture {
    /// That of this program; `None` for others.
    pub const fn current() -> Option<Self> {
        if cfg!(target_arch = "x86_64") {
            Some(Self::Amd64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Self::Arm64)
        } else {
            None
        }
    }

    /// Its name in images and in Debian.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    const fn of_image(self) -> Arch {
        match self {
            Self::Amd64 => Arch::Amd64,
            Self::Arm64 => Arch::ARM64,
        }
    }
}

/// Where the image has the program.
const PROGRAM: &str = "usr/bin/kproxy";
/// kube-proxy's place in its own image: kubeadm's DaemonSet runs that.
const KUBE_PROXY: &str = "usr/local/bin/kube-proxy";

impl Image {
    /// Writes the image to a file: a layer with nft and the libraries of the distribution, and one with the
    /// program.
    ///
    /// # Errors
    /// When the distribution's packages cannot be had, or the file not be written.
    pub fn write(&self, file: &Path) -> Result<()> {
        let rootfs = rootfs::of(self.arch.name(), self.cached)?;
        let target = File::create(file).with_context(|| format!("make {}", file.display()))?;
        let mut archive = Archive::new(target)?;
        archive.layer(
            fs::read(&rootfs).with_context(|| format!("read {}", rootfs.display()))?,
            "nft, iptables and the libraries of the distribution",
        )?;
        archive.layer(self.program()?, "kproxy")?;
        archive
            .finish(&self.name, self.arch.of_image(), &format!("/{PROGRAM}"))
            .with_context(|| format!("write {}", file.display()))
    }

    /// The layer with the program, under both of its names.
    fn program(&self) -> Result<Vec<u8>> {
        let program = fs::read(&self.binary)
            .with_context(|| format!("read the program {}", self.binary.display()))?;
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = archive::header(program.len() as u64, 0o755);
        tar.append_data(&mut header, PROGRAM, &*program).context("pack the program")?;
        let mut link = archive::header(0, 0o777);
        link.set_entry_type(tar::EntryType::Symlink);
        tar.append_link(&mut link, KUBE_PROXY, format!("/{PROGRAM}"))
            .context("pack the program's other name")?;
        tar.into_inner().context("pack the program")
    }
}
