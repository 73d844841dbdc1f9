//! What a guest boots from: archives of files that the kernel unpacks one after the other.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use kproxy_lab::in_path;

use super::fetch::Kernel;
use crate::run;

/// Programs of this machine that take the place of busybox's: Debian's busybox runs its own `ip` and `tc`, whatever
/// `PATH` says, below its own `sh` and `timeout`.
const PROGRAMS: [&str; 12] = [
    "sh", "bash", "ip", "tc", "bridge", "nft", "nsenter", "setpriv", "sysctl", "timeout", "kmod",
    "modprobe",
];
/// Parts of a kernel that the lab may need modules of.
const MODULES: [&str; 5] =
    ["kernel/net", "kernel/lib", "kernel/crypto", "kernel/arch", "kernel/drivers/net"];
/// Files of a guest's own.
const OWN: [(&str, &str, bool); 4] = [
    ("init", include_str!("guest/init"), true),
    ("guest/facts.sh", include_str!("guest/facts.sh"), false),
    ("guest/mode.sh", include_str!("guest/mode.sh"), false),
    ("guest/objects/web.yaml", include_str!("guest/objects.yaml"), false),
];

/// Test programs and what they start: file, and where it is in the guest.
pub(super) type Payload<'a> = [(&'a Path, &'a str)];

/// What is the same for all kernels, as an archive.
///
/// # Errors
/// When a file cannot be copied or a program fails; names it.
pub(super) fn common(work: &Path, payload: &Payload<'_>) -> Result<PathBuf> {
    let root = work.join("root");
    for folder in [
        "proc",
        "sys",
        "dev",
        "run",
        "tmp",
        "root",
        "etc",
        "var",
        "usr/bin",
        "usr/lib",
        "usr/lib64",
        "guest/objects",
        "guest/target/debug/deps",
    ] {
        fs::create_dir_all(root.join(folder)).with_context(|| format!("make {folder}"))?;
    }
    for (link, to) in [
        ("bin", "usr/bin"),
        ("sbin", "usr/bin"),
        ("usr/sbin", "bin"),
        ("lib", "usr/lib"),
        ("lib64", "usr/lib64"),
        ("var/run", "/run"),
    ] {
        symlink(to, root.join(link)).with_context(|| format!("link {link}"))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")?;
    for (path, text, is_program) in OWN {
        let path = root.join(path);
        fs::write(&path, text)?;
        if is_program {
            make_executable(&path)?;
        }
    }
    let mut libraries = BTreeSet::new();
    busybox(&root, &mut libraries)?;
    for name in PROGRAMS {
        let found = in_path(name).with_context(|| format!("`{name}` is not installed"))?;
        let to = root.join("usr/bin").join(name);
        let _applet = fs::remove_file(&to);
        copy(&found, &to)?;
        libraries.extend(libraries_of(&found));
    }
    for (file, place) in payload {
        let to = root.join(place);
        let mut strip = Command::new("strip");
        strip.arg("--strip-debug").arg("-o").arg(&to).arg(file);
        run::step("strip", &mut strip)?;
        libraries.extend(libraries_of(file));
    }
    for library in libraries {
        copy(&library, &root.join(library.strip_prefix("/").unwrap_or(&library)))?;
    }
    pack(&root, &work.join("common.cpio"))
}

fn busybox(root: &Path, libraries: &mut BTreeSet<PathBuf>) -> Result<()> {
    let busybox = in_path("busybox").context("`busybox` is not installed")?;
    let applets = run::answer(Command::new(&busybox).arg("--list")).context("ask busybox")?;
    copy(&busybox, &root.join("usr/bin/busybox"))?;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", root.join("usr/bin").join(applet))?;
    }
    libraries.extend(libraries_of(&busybox));
    Ok(())
}

/// A kernel's modules with an index, as an archive.
///
/// # Errors
/// As [`common`].
pub(super) fn modules(work: &Path, kernel: &Kernel) -> Result<PathBuf> {
    let root = work.join("modules");
    let place = root.join("usr/lib/modules").join(&kernel.release);
    for part in MODULES {
        let to = place.join(part);
        fs::create_dir_all(&to).with_context(|| format!("make {}", to.display()))?;
        let from = kernel.modules.join(part);
        if from.is_dir() {
            let mut copy = Command::new("cp");
            copy.arg("-rT").arg(&from).arg(&to);
            run::step("copy modules", &mut copy)?;
        }
    }
    for name in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        let from = kernel.modules.join(name);
        if from.is_file() {
            copy(&from, &place.join(name))?;
        }
    }
    let depmod = in_path("depmod").context("`depmod` is not installed")?;
    let mut index = Command::new(depmod);
    // Some depmods look below lib/modules, others below usr/lib/modules.
    symlink("usr/lib", root.join("lib")).context("link lib")?;
    index.arg("-b").arg(&root).arg(&kernel.release);
    run::step("index modules", &mut index)?;
    pack(&root, &work.join("modules.cpio"))
}

/// A list of steps, as an archive.
///
/// # Errors
/// As [`common`].
pub(super) fn steps(work: &Path, text: &str) -> Result<PathBuf> {
    let root = work.join("steps");
    fs::create_dir_all(root.join("guest"))?;
    fs::write(root.join("guest/steps"), text)?;
    pack(&root, &work.join("steps.cpio"))
}

fn pack(root: &Path, to: &Path) -> Result<PathBuf> {
    let mut names = Command::new("find");
    names.current_dir(root).args([".", "-mindepth", "1", "-print0"]);
    let mut names = names.stdout(Stdio::piped()).spawn().context("start find")?;
    let listed = names.stdout.take().context("the output of find")?;
    let archive = fs::File::create(to).with_context(|| format!("make {}", to.display()))?;
    let mut cpio = Command::new("cpio");
    cpio.current_dir(root).args(["--null", "--create", "--format=newc", "--quiet", "-R", "0:0"]);
    let status = cpio.stdin(listed).stdout(archive).status().context("start cpio")?;
    if !names.wait()?.success() || !status.success() {
        bail!("pack {}: find or cpio failed", root.display());
    }
    Ok(to.to_owned())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    fs::copy(from, to).with_context(|| format!("copy {}", from.display()))?;
    Ok(())
}

fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("make {} executable", path.display()))
}

/// The shared libraries of a program, and its loader.
fn libraries_of(program: &Path) -> BTreeSet<PathBuf> {
    let text = run::answer(Command::new("ldd").arg(program)).unwrap_or_default();
    let words = text.split_whitespace().filter(|word| word.starts_with('/'));
    words.map(PathBuf::from).filter(|path| path.is_file()).collect()
}
