//! From what a machine has to what is run on it; pure.

use std::collections::BTreeSet;

use kproxy_build::{Compiler, LINKER, LINKER_VERSION, RUSTUP_TOOLCHAIN, tools_dir};

use super::{
    facts::{
        CLIPPY_PACKAGE, COMPILER_PACKAGES, Facts, GO_PACKAGE, LINKER_PACKAGES, LLVMS, PROGRAMS,
        llvm_packages,
    },
    go,
    scope::Scope,
    step::{Action, Step},
};

/// What is there and what is to be done about the rest.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Thing and where it was found.
    pub(crate) present: Vec<(&'static str, String)>,
    /// What to install, in order.
    pub(crate) steps: Vec<Step>,
    /// What cannot be installed, each with what to do by hand.
    pub(crate) impossible: Vec<String>,
}

impl Plan {
    /// Nothing is missing.
    pub(crate) const fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.impossible.is_empty()
    }
}

/// What to do on a machine with these facts.
pub(crate) fn plan(facts: &Facts, scope: Scope) -> Plan {
    let mut plan = Plan::default();
    let mut packages = BTreeSet::new();
    let llvm = compiler(facts, &mut plan, &mut packages);
    if scope == Scope::All {
        clippy(facts, &mut plan, &mut packages);
    }
    let linker = linker(facts, llvm, &mut plan, &mut packages);
    programs(facts, scope, &mut plan, &mut packages);
    let go = match scope {
        Scope::Manifests | Scope::Kernels => None,
        Scope::All => go(facts, &mut plan, &mut packages),
    };

    if !packages.is_empty() {
        let mut words = vec!["install", "-y", "-q", "--no-install-recommends"];
        words.extend(packages.iter().map(String::as_str));
        // The lab starts its own: no service of a package is to run on the machine.
        let install = Action::new("apt-get", &words)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("SYSTEMD_OFFLINE", "1")
            .env("RUNLEVEL", "1");
        let count = packages.len();
        plan.steps.insert(
            0,
            Step {
                what: format!("{count} package{}", if count == 1 { "" } else { "s" }),
                why: "programs and libraries of the distribution",
                commands: vec![install],
                root: true,
                slow: None,
            },
        );
    }
    plan.steps.extend(linker);
    plan.steps.extend(go);
    plan
}

/// The compiler for the BPF programs. Returns the LLVM release in it, as far as it is known.
fn compiler(facts: &Facts, plan: &mut Plan, packages: &mut BTreeSet<String>) -> Option<u32> {
    if let Some((compiler, llvm)) = facts.compiler {
        plan.present.push(("BPF compiler", compiler.to_string()));
        return llvm;
    }
    let distribution =
        facts.apt.as_ref().filter(|apt| COMPILER_PACKAGES.iter().all(|&name| apt.offers(name)));
    if let Some(apt) = distribution {
        packages.extend(COMPILER_PACKAGES.iter().filter(|name| !apt.has(name)).map(|&n| n.into()));
        return None;
    }
    if facts.rustup {
        let words =
            ["toolchain", "install", RUSTUP_TOOLCHAIN, "--profile", "minimal", "-c", "rust-src"];
        plan.steps.push(Step {
            what: format!("rustup {RUSTUP_TOOLCHAIN}"),
            why: "compiles the BPF programs",
            commands: vec![Action::new("rustup", &words)],
            root: false,
            slow: Some("about 1 minute"),
        });
        return None;
    }
    plan.impossible.push(format!(
        "a compiler for the BPF programs ({}); install rustup from https://rustup.rs and run \
         `rustup toolchain install {RUSTUP_TOOLCHAIN} --component rust-src`",
        facts.compiler_refused.join("; "),
    ));
    None
}

/// The clippy of the compiler that is there or will be. Where it cannot be had, the tests do without.
fn clippy(facts: &Facts, plan: &mut Plan, packages: &mut BTreeSet<String>) {
    if facts.clippy {
        return;
    }
    let from_rustup = match facts.compiler {
        Some((compiler, _)) => compiler == Compiler::Rustup,
        None => !COMPILER_PACKAGES.iter().all(|&name| offers(facts, name)),
    };
    if !from_rustup {
        if offers(facts, CLIPPY_PACKAGE) {
            // All of them: clippy works only with the compiler of its own release.
            packages
                .extend(COMPILER_PACKAGES.into_iter().chain([CLIPPY_PACKAGE]).map(str::to_owned));
        }
    } else if facts.rustup {
        let words = ["component", "add", "clippy", "--toolchain", RUSTUP_TOOLCHAIN];
        plan.steps.push(Step {
            what: format!("clippy of {RUSTUP_TOOLCHAIN}"),
            why: "lints the BPF programs",
            commands: vec![Action::new("rustup", &words)],
            root: false,
            slow: None,
        });
    }
}

fn offers(facts: &Facts, package: &str) -> bool {
    facts.apt.as_ref().is_some_and(|apt| apt.offers(package))
}

/// bpf-linker: built against the distribution's LLVM, else the project's own binary release.
fn linker(
    facts: &Facts,
    llvm_of_compiler: Option<u32>,
    plan: &mut Plan,
    packages: &mut BTreeSet<String>,
) -> Option<Step> {
    if let Some(path) = &facts.linker {
        plan.present.push((LINKER, path.clone()));
        return None;
    }
    let Some(tools) = tools_dir() else {
        plan.impossible.push(format!("{LINKER}: no cache folder; set HOME or KPROXY_CACHE"));
        return None;
    };
    // rustup's nightly may be ahead of the oldest LLVM here, which could not read its output.
    let from_rustup = matches!(facts.compiler, Some((Compiler::Rustup, _)))
        || plan.steps.iter().any(|step| step.what.starts_with("rustup"));
    let least = llvm_of_compiler.unwrap_or(if from_rustup { LLVMS[1] } else { LLVMS[0] });
    let llvm = LLVMS.into_iter().filter(|&major| major >= least).find(|&major| {
        facts.llvm.contains(&major) || llvm_packages(major).iter().all(|name| offers(facts, name))
    });
    let commands = match llvm {
        Some(major) => {
            if let Some(apt) = &facts.apt {
                let libraries = LINKER_PACKAGES.iter().map(|&name| name.to_owned());
                let wanted = llvm_packages(major).into_iter().chain(libraries);
                packages.extend(wanted.filter(|name| !apt.has(name)));
            }
            vec![from_source(major, &tools.display().to_string())]
        }
        None => {
            if let Some(apt) = &facts.apt {
                packages.extend(
                    ["curl", "zstd"].iter().filter(|name| !apt.has(name)).map(|&n| n.into()),
                );
            }
            from_release(&tools.display().to_string())
        }
    };
    Some(Step {
        what: format!("{LINKER} {LINKER_VERSION}"),
        why: "links the BPF programs",
        commands,
        root: false,
        slow: llvm.map(|_| "about 2 minutes"),
    })
}

fn from_source(llvm: u32, tools: &str) -> Action {
    let feature = format!("llvm-{llvm}");
    let words = [
        "install",
        LINKER,
        "--version",
        LINKER_VERSION,
        "--locked",
        "--root",
        tools,
        "--no-default-features",
        "--features",
        &feature,
    ];
    Action::new("cargo", &words).env("LLVM_PREFIX", format!("/usr/lib/llvm-{llvm}"))
}

fn from_release(tools: &str) -> Vec<Action> {
    let arch = std::env::consts::ARCH;
    let archive = format!("{tools}/{LINKER}.tar.zst");
    let bin = format!("{tools}/bin");
    let url = format!(
        "https://github.com/aya-rs/{LINKER}/releases/download/v{LINKER_VERSION}/\
         {LINKER}-{arch}-unknown-linux-musl.tar.zst"
    );
    vec![
        Action::new("mkdir", &["-p", &bin]),
        Action::new("curl", &["-fsSL", "--retry", "3", "-o", &archive, &url]),
        Action::new("tar", &["--zstd", "-xf", &archive, "-C", &bin]),
    ]
}

fn programs(facts: &Facts, scope: Scope, plan: &mut Plan, packages: &mut BTreeSet<String>) {
    let wanted = |index: &usize| PROGRAMS[*index].only_for.is_none_or(|only| only == scope);
    let found: Vec<_> = (0..PROGRAMS.len())
        .filter(|index| !facts.missing.contains(index))
        .filter(wanted)
        .map(|index| PROGRAMS[index].name)
        .collect();
    if !found.is_empty() {
        plan.present.push(("programs of the lab", found.join(" ")));
    }
    for program in facts.missing.iter().filter(|index| wanted(index)).map(|&i| &PROGRAMS[i]) {
        if offers(facts, program.package) {
            packages.insert(program.package.to_owned());
        } else {
            plan.impossible.push(format!(
                "`{}` ({}); install your distribution's package of it",
                program.name, program.why
            ));
        }
    }
}

/// Go, unless what it would build is built.
fn go(facts: &Facts, plan: &mut Plan, packages: &mut BTreeSet<String>) -> Option<Step> {
    if facts.kubernetes {
        plan.present
            .push(("Kubernetes", "kube-apiserver, kube-proxy and CoreDNS are built".into()));
        return None;
    }
    match facts.go {
        Some(version) if version >= go::SELF_UPDATING => {
            plan.present.push(("Go", format!("{}.{}", version.0, version.1)));
            return None;
        }
        _ if facts.cached_go => {
            plan.present.push(("Go", "in the cache".into()));
            return None;
        }
        Some(_) => {}
        None if offers(facts, GO_PACKAGE) => {
            packages.insert(GO_PACKAGE.to_owned());
        }
        None => {
            plan.impossible.push(
                "Go (builds kube-apiserver, kube-proxy and CoreDNS); install it from \
                 https://go.dev/dl"
                    .into(),
            );
            return None;
        }
    }
    Some(Step {
        what: "a newer Go".into(),
        why: "builds kube-apiserver, kube-proxy and CoreDNS",
        commands: go::fetch(),
        root: false,
        slow: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::apt::Apt;

    fn complete() -> Facts {
        Facts {
            root: true,
            compiler: Some((Compiler::Distribution, Some(22))),
            clippy: true,
            linker: Some("/cache/bin/bpf-linker".into()),
            kubernetes: true,
            ..Facts::default()
        }
    }

    fn lines(plan: &Plan) -> String {
        let commands = plan.steps.iter().flat_map(|step| &step.commands);
        commands.map(|c| crate::run::command_line(&c.build()) + "\n").collect()
    }

    #[test]
    fn a_complete_machine_needs_nothing() {
        let plan = plan(&complete(), Scope::All);
        assert!(plan.steps.is_empty() && plan.impossible.is_empty(), "{plan:?}");
    }

    #[test]
    fn debian_gets_its_own_compiler_and_a_linker_of_the_same_llvm() {
        let apt = Apt::offering(&[
            "rustc-web",
            "cargo-web",
            "rust-web-src",
            "llvm-22-dev",
            "libpolly-22-dev",
            "zlib1g-dev",
            "libzstd-dev",
            "libxml2-dev",
        ]);
        let facts = Facts { compiler: None, linker: None, apt: Some(apt), ..complete() };
        let text = lines(&plan(&facts, Scope::All));
        assert!(text.contains("apt-get install"), "{text}");
        assert!(text.contains("rust-web-src") && text.contains("libpolly-22-dev"), "{text}");
        assert!(text.contains("--no-default-features --features llvm-22"), "{text}");
    }

    #[test]
    fn clippy_comes_from_where_the_compiler_comes_from() {
        let packages = ["rustc-web", "cargo-web", "rust-web-src", "rust-web-clippy"];
        let facts = || Facts { clippy: false, rustup: true, ..complete() };
        let debian = Facts { apt: Some(Apt::offering(&packages)), ..facts() };
        assert!(lines(&plan(&debian, Scope::All)).contains("rust-web-clippy rust-web-src"));
        let none_yet = Facts { compiler: None, ..debian };
        assert!(lines(&plan(&none_yet, Scope::All)).contains("rust-web-clippy"));
        let rustup = Facts { compiler: Some((Compiler::Rustup, Some(22))), ..facts() };
        let text = lines(&plan(&rustup, Scope::All));
        assert!(text.contains("rustup component add clippy --toolchain nightly"), "{text}");
    }

    #[test]
    fn a_machine_without_clippy_for_the_compiler_is_complete() {
        let facts = Facts { clippy: false, ..complete() };
        assert!(plan(&facts, Scope::All).is_empty());
        let facts = Facts { rustup: true, apt: Some(Apt::offering(&[])), ..facts };
        assert!(plan(&facts, Scope::All).is_empty());
        let offered = Apt::offering(&["rust-web-clippy"]);
        assert!(plan(&Facts { apt: Some(offered), ..facts }, Scope::Manifests).is_empty());
    }

    #[test]
    fn elsewhere_rustup_s_nightly_and_the_linker_s_release_are_taken() {
        let apt = Apt::offering(&["curl", "zstd"]);
        let facts =
            Facts { compiler: None, linker: None, rustup: true, apt: Some(apt), ..complete() };
        let text = lines(&plan(&facts, Scope::All));
        assert!(text.contains("rustup toolchain install nightly"), "{text}");
        assert!(text.contains("releases/download/v0.13.0"), "{text}");
    }

    #[test]
    fn a_newer_nightly_is_not_given_an_older_llvm() {
        let apt = Apt::offering(&["llvm-22-dev", "libpolly-22-dev", "curl", "zstd"]);
        let compiler = Some((Compiler::Rustup, Some(23)));
        let facts = Facts { compiler, linker: None, apt: Some(apt), ..complete() };
        assert!(!lines(&plan(&facts, Scope::All)).contains("llvm-22"));
    }

    #[test]
    fn without_rustup_and_packages_the_user_is_told_what_to_do() {
        let plan = plan(&Facts { compiler: None, ..complete() }, Scope::All);
        assert!(plan.impossible[0].contains("https://rustup.rs"), "{plan:?}");
    }

    #[test]
    fn labs_without_an_api_server_need_neither_go_nor_etcd() {
        let etcd = PROGRAMS.iter().position(|program| program.name == "etcd").unwrap();
        let facts = Facts { kubernetes: false, missing: vec![etcd], ..complete() };
        let manifests = plan(&facts, Scope::Manifests);
        assert!(manifests.steps.is_empty() && manifests.impossible.is_empty(), "{manifests:?}");
        assert_eq!(plan(&facts, Scope::All).impossible.len(), 2);
    }

    #[test]
    fn other_kernels_need_qemu_and_nothing_else_does() {
        let qemu = PROGRAMS.iter().position(|program| program.package == "qemu-system-x86");
        let apt = Some(Apt::offering(&["qemu-system-x86"]));
        let facts = Facts { missing: vec![qemu.unwrap()], apt, ..complete() };
        assert!(lines(&plan(&facts, Scope::Kernels)).contains("qemu-system-x86"));
        assert!(plan(&facts, Scope::All).is_empty() && plan(&facts, Scope::Manifests).is_empty());
    }

    #[test]
    fn an_old_go_fetches_a_newer_one() {
        let facts = Facts { kubernetes: false, go: Some((1, 19)), ..complete() };
        assert!(lines(&plan(&facts, Scope::All)).contains("mod download golang.org/toolchain@"));
        let facts = Facts { kubernetes: false, go: Some((1, 21)), ..complete() };
        assert!(plan(&facts, Scope::All).steps.is_empty());
    }
}
