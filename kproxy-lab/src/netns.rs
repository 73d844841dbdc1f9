//! Network namespaces: entering them, settings in them, and commands of iproute2.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail};
use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, setns};

use crate::{cgroup, layout};

/// Moves the calling thread into a named network namespace. Mounts stay as they are (`ip netns
/// exec` would hide the cgroup tree).
pub(crate) fn enter(path: &Path) -> Result<()> {
    let file = File::open(path)
        .with_context(|| format!("open network namespace {}: is the lab gone?", path.display()))?;
    setns(file, CloneFlags::CLONE_NEWNET)
        .with_context(|| format!("enter network namespace {}", path.display()))
}

/// Runs `work` on a thread of its own inside a network namespace.
pub(crate) fn run_in<T: Send>(path: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(path)?;
            work()
        });
        thread.join().map_err(|_panic| anyhow!("a thread in {} panicked", path.display()))?
    })
}

/// Writes settings (paths below /proc/sys/net) of a network namespace.
pub(crate) fn sysctl<N: AsRef<str> + Sync>(path: &Path, settings: &[(N, &str)]) -> Result<()> {
    run_in(path, || {
        for (name, value) in settings {
            let file = Path::new("/proc/sys/net").join(name.as_ref());
            fs::write(&file, value)
                .with_context(|| format!("set {} to {value}", file.display()))?;
        }
        Ok(())
    })
}

/// Whether the kernel passes bridged packets to netfilter where told so (module br_netfilter).
pub(crate) fn has_bridge_netfilter() -> bool {
    Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables").exists()
}

/// Runs commands of `ip` or `bridge`, one a line, in the named namespace or in none. The process
/// works inside `cgroup`: when the lab is cleaned half-way through its making, it ends with the
/// rest.
pub(crate) fn batch(
    program: &str,
    netns: Option<&str>,
    commands: &str,
    cgroup: &Path,
) -> Result<()> {
    let mut command = Command::new(program);
    if let Some(netns) = netns {
        command.args(["-netns", netns]);
    }
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("run `{program}`: install iproute2"))?;
    cgroup::join(cgroup, child.id())?;
    // It reads its commands only now, inside the cgroup. A failed write means that it gave up: its
    // message says why.
    let written = child.stdin.take().map(|mut input| input.write_all(commands.as_bytes()));
    let output = child.wait_with_output().with_context(|| format!("wait for `{program}`"))?;
    if !output.status.success() || !matches!(written, Some(Ok(()))) {
        let message = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{program}` in {}: {}\ncommands:\n{commands}",
            netns.unwrap_or("the initial namespace"),
            message.trim(),
        );
    }
    Ok(())
}

/// Names of all namespaces that start with `prefix`.
pub(crate) fn named(prefix: &str) -> Result<Vec<String>> {
    let entries = match fs::read_dir(layout::NETNS_ROOT) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| format!("list {}", layout::NETNS_ROOT)),
    };
    Ok(entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect())
}

/// Removes a named namespace; one that is gone already is no error.
pub(crate) fn remove(name: &str) -> Result<()> {
    let path = Path::new(layout::NETNS_ROOT).join(name);
    match umount2(&path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
        Err(e) => return Err(e).with_context(|| format!("unmount {}", path.display())),
    }
    match fs::remove_file(&path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e).with_context(|| format!("remove {}", path.display())),
    }
}
