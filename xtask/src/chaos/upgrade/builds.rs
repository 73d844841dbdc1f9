//! Builds of kproxy to change from and to.

use std::{
    cell::Cell,
    fmt, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{run, workspace};

/// A build of kproxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Build {
    /// The one that the lab runs otherwise.
    This,
    /// The same source, optimized.
    Another,
    /// With maps of another layout.
    OtherLayout,
    /// The same with a program that the kernel refuses.
    Refused,
}

impl Build {
    const fn file(self) -> &'static str {
        match self {
            Self::This => "this",
            Self::Another => "another",
            Self::OtherLayout => "other-layout",
            Self::Refused => "refused",
        }
    }
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::This => "this build",
            Self::Another => "another build",
            Self::OtherLayout => "the other layout",
            Self::Refused => "programs that the kernel refuses",
        })
    }
}

/// All of them, and which one is run.
pub(super) struct Builds {
    folder: PathBuf,
    /// What daemons are started from: a link to one of them.
    current: PathBuf,
    chosen: Cell<Build>,
}

impl Builds {
    /// Makes them; [`Build::This`] is chosen, and has been built before. `all`: also [`Build::Another`], which takes
    /// several minutes the first time.
    ///
    /// # Errors
    /// A build fails, or a file cannot be written.
    pub(super) fn make(all: bool) -> Result<Self> {
        let built = kproxy_lab::kproxy()?;
        let folder = built.with_file_name("chaos-upgrade");
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let builds =
            Self { current: folder.join("kproxy"), folder, chosen: Cell::new(Build::This) };
        builds.keep(Build::This, &fs::read(&built)?)?;
        build(Build::OtherLayout, &["--features", "other-layout"])?;
        let mut program = fs::read(&built)?;
        builds.keep(Build::OtherLayout, &program)?;
        spoil(&mut program).context("find the BPF programs in kproxy")?;
        builds.keep(Build::Refused, &program)?;
        // The next command finds what it would have built.
        build(Build::This, &[])?;
        if all {
            build(Build::Another, &["--release"])?;
            let release = built.ancestors().nth(2).unwrap_or(&built).join("release/kproxy");
            builds.keep(Build::Another, &fs::read(release)?)?;
        }
        builds.choose(Build::This)?;
        Ok(builds)
    }

    /// What daemons are to be started from.
    pub(super) fn current(&self) -> &Path {
        &self.current
    }

    /// Which one that is.
    pub(super) const fn chosen(&self) -> Build {
        self.chosen.get()
    }

    /// Has the next daemons be of this build.
    ///
    /// # Errors
    /// The link cannot be made.
    pub(super) fn choose(&self, build: Build) -> Result<()> {
        let fresh = self.folder.join("kproxy~");
        if fresh.is_symlink() {
            fs::remove_file(&fresh)?;
        }
        symlink(build.file(), &fresh)?;
        fs::rename(&fresh, &self.current)?;
        self.chosen.set(build);
        Ok(())
    }

    fn path(&self, build: Build) -> PathBuf {
        self.folder.join(build.file())
    }

    /// Writes a build beside the others.
    fn keep(&self, build: Build, bytes: &[u8]) -> Result<()> {
        let path = self.path(build);
        write_program(&path, bytes).with_context(|| format!("write {}", path.display()))
    }
}

fn build(which: Build, arguments: &[&str]) -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--package", "kproxy", "--bins"]).args(arguments);
    run::step(&which.to_string(), &mut cargo)
}

fn write_program(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    // Another one that still runs keeps its file.
    if path.exists() {
        fs::remove_file(path)?;
    }
    fs::write(path, bytes)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// Has the first program of each section of the BPF object in `program` read a register that holds nothing. `None`: no
/// object was found.
fn spoil(program: &mut [u8]) -> Option<()> {
    /// What an ELF file of 64 bits begins with, and its machine (elf.h).
    const ELF: [u8; 5] = [0x7f, b'E', b'L', b'F', 2];
    const EM_BPF: u16 = 247;
    const SHF_EXECINSTR: u64 = 4;
    /// `r0 = r5`.
    const READS_NOTHING: [u8; 8] = [0xbf, 0x50, 0, 0, 0, 0, 0, 0];
    let number = |bytes: &[u8], at: usize, len: usize| {
        let mut number = [0; 8];
        number[..len].copy_from_slice(bytes.get(at..at + len)?);
        Some(u64::from_le_bytes(number))
    };
    let is_object = |at: &usize| {
        program[*at..].starts_with(&ELF) && number(program, at + 18, 2) == Some(u64::from(EM_BPF))
    };
    let start = (0..program.len()).find(is_object)?;
    let object = &mut program[start..];
    let (sections, size) = (number(object, 40, 8)? as usize, number(object, 58, 2)? as usize);
    let count = number(object, 60, 2)? as usize;
    let mut spoiled = None;
    for section in (0..count).map(|index| sections + index * size) {
        let (flags, at) =
            (number(object, section + 8, 8)?, number(object, section + 24, 8)? as usize);
        if flags & SHF_EXECINSTR != 0 && number(object, section + 32, 8)? >= 8 {
            object.get_mut(at..at + 8)?.copy_from_slice(&READS_NOTHING);
            spoiled = Some(());
        }
    }
    spoiled
}
