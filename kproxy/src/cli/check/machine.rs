//! The kernel, its file systems, and the rights of this process.

use std::fs;
use std::path::Path;

use aya::util::KernelVersion;
use nix::sys::utsname::uname;
use nix::unistd::{AccessFlags, access};

use super::finding::Finding;
use crate::daemon::{Settings, SocketLb, SourceNat};
use crate::dataplane;
use crate::errors::with_causes;
use crate::node::{bpffs, capabilities, cgroup, nft};

/// Types of the kernel, by which programs fit it.
const BTF: &str = "/sys/kernel/btf/vmlinux";
/// Whether programs become machine code.
const JIT: &str = "/proc/sys/net/core/bpf_jit_enable";
/// One of the settings that kproxy makes at its start.
const CONNTRACK: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

/// Looks.
pub(super) fn look(settings: &Settings) -> Vec<Finding> {
    let mut all = vec![kernel(), btf()];
    all.extend(jit());
    let rights = capabilities::check();
    all.push(match &rights {
        Ok(()) => capabilities(),
        Err(error) => Finding::failure("capabilities", error.to_string(), RIGHTS),
    });
    all.push(programs(rights.is_ok()));
    all.push(cgroup(settings));
    all.push(bpffs(&settings.dataplane.bpffs_root));
    all.push(run_dir(settings.run_dir.path()));
    all.extend(conntrack());
    all.push(nft(settings));
    all
}

const RIGHTS: &str = "run it as root, or with what deploy/kproxy.yaml grants";

fn kernel() -> Finding {
    const CHECK: &str = "kernel";
    let release = uname().map(|name| name.release().to_string_lossy().into_owned());
    let release = release.unwrap_or_else(|error| format!("unknown ({error})"));
    let Ok(version) = KernelVersion::current() else {
        let remedy = "kproxy takes it for the oldest that it runs on; see docs/kernels.md";
        return Finding::warning(CHECK, format!("{release}: no version can be told"), remedy);
    };
    if version < KernelVersion::new(5, 10, 0) {
        let remedy = "run Linux 5.10 or newer";
        return Finding::failure(CHECK, format!("{release}: too old for the programs"), remedy);
    }
    let less = [
        ((5, 18), "connect() to a Service without endpoints times out instead of being refused"),
        ((6, 6), "programs of devices are filters of clsact instead of links of tcx"),
    ];
    let since = less
        .iter()
        .filter(|((major, minor), _)| version < KernelVersion::new(*major, *minor, 0))
        .map(|((major, minor), what)| format!("; before {major}.{minor} {what}"));
    Finding::ok(CHECK, since.fold(release, |text, more| text + &more))
}

fn btf() -> Finding {
    if Path::new(BTF).exists() {
        return Finding::ok("BTF", BTF);
    }
    let found = format!("there is no {BTF}: the programs cannot be fitted to this kernel");
    Finding::failure(
        "BTF",
        found,
        "run a kernel with CONFIG_DEBUG_INFO_BTF=y, as distributions build it",
    )
}

/// Not to be seen outside of the first network namespace.
fn jit() -> Option<Finding> {
    let value = fs::read_to_string(JIT).ok()?;
    Some(if value.trim() == "0" {
        let found = "net.core.bpf_jit_enable is 0: the kernel interprets the programs, which is many times slower";
        Finding::warning("JIT", found, "set it: `sysctl -w net.core.bpf_jit_enable=1`")
    } else {
        Finding::ok("JIT", "programs become machine code")
    })
}

fn capabilities() -> Finding {
    const CHECK: &str = "capabilities";
    if capabilities::may_enter_namespaces() {
        return Finding::ok(CHECK, "BPF, NET_ADMIN, PERFMON, SYS_ADMIN");
    }
    let found = "CAP_SYS_ADMIN is missing: UDP sockets in pods stay with endpoints that have gone, and nobody can be \
                 opted out";
    Finding::warning(CHECK, found, "grant it as deploy/kproxy.yaml does, if pods use UDP Services")
}

fn programs(may_load: bool) -> Finding {
    const CHECK: &str = "programs";
    if !may_load {
        return Finding::warning(CHECK, "not tried: capabilities are missing", RIGHTS);
    }
    match dataplane::try_programs() {
        Ok(count) => Finding::ok(CHECK, format!("the kernel takes all {count} of them")),
        Err(error) => {
            let found = with_causes(&error);
            Finding::failure(
                CHECK,
                found,
                "see docs/kernels.md; `--log-level debug` shows more of the verifier's reasons",
            )
        }
    }
}

fn cgroup(settings: &Settings) -> Finding {
    const CHECK: &str = "cgroup v2";
    if settings.socket_lb == SocketLb::None {
        return Finding::ok(CHECK, "not needed with --socket-lb none");
    }
    match cgroup::root(settings.dataplane.cgroup_root.as_deref()) {
        Ok(path) => Finding::ok(CHECK, path.display().to_string()),
        // The daemon does not go on with another one than what was asked for.
        Err(error @ cgroup::Error::NotCgroup2(_)) => {
            Finding::failure(CHECK, error.to_string(), "name one that is, or none")
        }
        Err(error) => {
            let problem = error.to_problem();
            Finding::warning(CHECK, problem.what, problem.remedy)
        }
    }
}

fn bpffs(root: &Path) -> Finding {
    const CHECK: &str = "bpffs";
    let path = root.display();
    match bpffs::is_bpffs(root) {
        Ok(true) => Finding::ok(CHECK, path.to_string()),
        Ok(false) | Err(nix::errno::Errno::ENOENT) => {
            let found = format!("no BPF file system is mounted on {path}");
            let remedy = format!("run `mount -t bpf bpf {path}` on the node");
            if capabilities::may_enter_namespaces() {
                let found = format!(
                    "{found}; kproxy mounts one at its start, in a container for itself alone"
                );
                Finding::warning(CHECK, found, remedy)
            } else {
                Finding::failure(
                    CHECK,
                    format!("{found}, and without CAP_SYS_ADMIN kproxy cannot"),
                    remedy,
                )
            }
        }
        Err(error) => Finding::unseen(CHECK, &error),
    }
}

fn run_dir(path: &Path) -> Finding {
    const CHECK: &str = "run folder";
    let there = path.ancestors().find(|folder| folder.exists()).unwrap_or(path);
    match access(there, AccessFlags::W_OK) {
        Ok(()) => Finding::ok(CHECK, path.display().to_string()),
        Err(error) => {
            let found = format!("{} cannot be written to: {error}", there.display());
            Finding::failure(CHECK, found, "make it writable, or name another with --run-dir")
        }
    }
}

/// `None`: nothing here tracks connections.
fn conntrack() -> Option<Finding> {
    const CHECK: &str = "conntrack";
    match access(CONNTRACK, AccessFlags::W_OK) {
        Ok(()) => Some(Finding::ok(CHECK, "kproxy can set its size and times")),
        Err(nix::errno::Errno::ENOENT) => None,
        Err(error) => {
            let found = format!(
                "{CONNTRACK} cannot be written to ({error}): its size and times stay as they are"
            );
            let remedy = "give kproxy a /proc/sys that it may write to, run `kproxy run --init-only` with more rights \
                          before it, or set net.netfilter.* on the node";
            Some(Finding::warning(CHECK, found, remedy))
        }
    }
}

fn nft(settings: &Settings) -> Finding {
    const CHECK: &str = "nft";
    match nft::list_tables() {
        Ok(_) => Finding::ok(CHECK, "it is there and answers"),
        Err(error) if settings.source_nat == SourceNat::Netfilter => {
            Finding::failure(CHECK, error.to_string(), "--snat netfilter needs it")
        }
        Err(error) => Finding::warning(
            CHECK,
            error.to_string(),
            "needed only for devices without an Ethernet header, and to see what other proxies have left",
        ),
    }
}
