//! What this machine has.

use std::{path::Path, process::Command};

use kproxy_build::{Compiler, LLVM_MAJOR, find_compiler, find_linker};
use kproxy_lab::{in_path, kubernetes};

use super::{apt::Apt, scope::Scope};
use crate::run;

/// A program of the lab and the package that holds it.
pub(crate) struct Program {
    /// The program.
    pub(crate) name: &'static str,
    /// Debian's and Ubuntu's package.
    pub(crate) package: &'static str,
    /// What kproxy's lab does with it.
    pub(crate) why: &'static str,
    /// The one scope that needs it; `None`: all do.
    pub(crate) only_for: Option<Scope>,
}

const fn program(name: &'static str, package: &'static str, why: &'static str) -> Program {
    Program { name, package, why, only_for: None }
}

const fn for_tests(name: &'static str, package: &'static str, why: &'static str) -> Program {
    Program { only_for: Some(Scope::All), ..program(name, package, why) }
}

const fn for_kernels(name: &'static str, package: &'static str, why: &'static str) -> Program {
    Program { only_for: Some(Scope::Kernels), ..program(name, package, why) }
}

/// Programs that the lab and the other kernels run.
pub(crate) const PROGRAMS: [Program; 14] = [
    program("ip", "iproute2", "makes network namespaces and links"),
    program("nsenter", "util-linux", "runs programs in namespaces"),
    program("nft", "nftables", "kproxy's masquerade rule"),
    for_tests("iptables-restore", "iptables", "kube-proxy's iptables mode"),
    for_tests("etcd", "etcd-server", "the API server's store"),
    for_tests("nginx", "nginx", "a reverse proxy in front of Services"),
    for_tests("mmdebstrap", "mmdebstrap", "what kproxy's image has of the distribution"),
    for_tests("containerd", "containerd", "runs kproxy's image"),
    for_tests("runc", "runc", "runs kproxy's image"),
    for_kernels("qemu-system-x86_64", "qemu-system-x86", "runs other kernels"),
    for_kernels("busybox", "busybox-static", "the small programs of a guest"),
    for_kernels("cpio", "cpio", "packs what a guest boots from"),
    for_kernels("depmod", "kmod", "lists a guest's modules"),
    for_kernels("dpkg-deb", "dpkg", "unpacks kernels; they come from Debian's mirror by apt"),
];

/// Debian's compiler with the sources of its library.
pub(crate) const COMPILER_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
/// Its clippy.
pub(crate) const CLIPPY_PACKAGE: &str = "rust-web-clippy";
/// What bpf-linker is linked with, beside LLVM.
pub(crate) const LINKER_PACKAGES: [&str; 3] = ["zlib1g-dev", "libzstd-dev", "libxml2-dev"];
/// The LLVM releases that bpf-linker can be built with, the preferred one first.
pub(crate) const LLVMS: [u32; 2] = [LLVM_MAJOR, LLVM_MAJOR + 1];
/// Go's package.
pub(crate) const GO_PACKAGE: &str = "golang-go";

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// Set-up runs as root.
    pub(crate) root: bool,
    /// The package manager, where it is apt.
    pub(crate) apt: Option<Apt>,
    /// rustup is installed.
    pub(crate) rustup: bool,
    /// The compiler for the BPF programs, and the LLVM release in it.
    pub(crate) compiler: Option<(Compiler, Option<u32>)>,
    /// That compiler's clippy is installed.
    pub(crate) clippy: bool,
    /// Why the compilers that were looked at cannot be used.
    pub(crate) compiler_refused: Vec<String>,
    /// Path of bpf-linker.
    pub(crate) linker: Option<String>,
    /// LLVM releases whose development files are installed.
    pub(crate) llvm: Vec<u32>,
    /// Programs of the lab that are missing, as indexes of [`PROGRAMS`].
    pub(crate) missing: Vec<usize>,
    /// Go on `PATH`: its version (major, minor).
    pub(crate) go: Option<(u32, u32)>,
    /// The newer Go in the cache.
    pub(crate) cached_go: bool,
    /// kube-apiserver, kube-proxy and CoreDNS are built.
    pub(crate) kubernetes: bool,
}

impl Facts {
    /// Looks at the machine.
    pub(crate) fn collect() -> Self {
        let (compiler, compiler_refused) = match find_compiler() {
            Ok(compiler) => (Some((compiler, compiler.llvm_major())), Vec::new()),
            Err(refused) => (None, refused),
        };
        Self {
            root: nix::unistd::geteuid().is_root(),
            apt: Apt::query(&all_packages().iter().map(String::as_str).collect::<Vec<_>>()),
            rustup: in_path("rustup").is_some(),
            clippy: compiler.is_some_and(|(compiler, _)| compiler.has_clippy()),
            compiler,
            compiler_refused,
            linker: find_linker().map(|linker| linker.path.display().to_string()),
            llvm: LLVMS.into_iter().filter(|&major| has_llvm(major)).collect(),
            missing: (0..PROGRAMS.len()).filter(|&i| in_path(PROGRAMS[i].name).is_none()).collect(),
            go: go_version(),
            cached_go: super::go::is_cached(),
            kubernetes: kubernetes::not_built().is_empty(),
        }
    }
}

/// Every package that set-up may ask for.
fn all_packages() -> Vec<String> {
    let llvm = LLVMS.iter().flat_map(|&major| llvm_packages(major));
    COMPILER_PACKAGES
        .into_iter()
        .chain(LINKER_PACKAGES)
        .chain([CLIPPY_PACKAGE, GO_PACKAGE, "curl", "zstd"])
        .chain(PROGRAMS.iter().map(|program| program.package))
        .map(str::to_owned)
        .chain(llvm)
        .collect()
}

/// LLVM's development packages.
pub(crate) fn llvm_packages(major: u32) -> [String; 2] {
    [format!("llvm-{major}-dev"), format!("libpolly-{major}-dev")]
}

fn has_llvm(major: u32) -> bool {
    Path::new(&format!("/usr/lib/llvm-{major}/bin/llvm-config")).is_file()
}

fn go_version() -> Option<(u32, u32)> {
    let mut command = Command::new("go");
    command.env("GOTOOLCHAIN", "local").args(["env", "GOVERSION"]);
    parse_go_version(&run::answer(&mut command)?)
}

/// `go1.26.8` → (1, 26).
fn parse_go_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().strip_prefix("go")?.split(['.', 'r', 'b']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_versions_are_read() {
        assert_eq!(parse_go_version("go1.26.8\n"), Some((1, 26)));
        assert_eq!(parse_go_version("go1.27rc1"), Some((1, 27)));
        assert_eq!(parse_go_version("devel +abc"), None);
    }
}
