//! The rules, and the places that are named in them.

use super::source::Source;

/// Longest file, in lines.
const LONGEST_FILE: usize = 600;

/// Files that may hold `unsafe` code.
const UNSAFE: [&str; 33] = [
    // Helper calls, map elements and context access of the programs.
    "kproxy-ebpf/src/flow/assured.rs",
    "kproxy-ebpf/src/flow/filter.rs",
    "kproxy-ebpf/src/flow/fragments.rs",
    "kproxy-ebpf/src/flow/open.rs",
    "kproxy-ebpf/src/flow/table.rs",
    "kproxy-ebpf/src/flow/unassured.rs",
    "kproxy-ebpf/src/hooks/inject.rs",
    "kproxy-ebpf/src/hooks/release.rs",
    "kproxy-ebpf/src/hooks/socket/apart.rs",
    "kproxy-ebpf/src/hooks/socket/context.rs",
    "kproxy-ebpf/src/hooks/socket/memory.rs",
    "kproxy-ebpf/src/hooks/socket/mod.rs",
    "kproxy-ebpf/src/hooks/udp_socket.rs",
    "kproxy-ebpf/src/kernel.rs",
    "kproxy-ebpf/src/main.rs",
    "kproxy-ebpf/src/packet/rewrite.rs",
    "kproxy-ebpf/src/path/forward.rs",
    "kproxy-ebpf/src/path/redirect.rs",
    "kproxy-ebpf/src/path/refuse.rs",
    "kproxy-ebpf/src/path/route.rs",
    "kproxy-ebpf/src/service/algorithm.rs",
    "kproxy-ebpf/src/service/load.rs",
    "kproxy-ebpf/src/service/lookup.rs",
    "kproxy-ebpf/src/service/pick.rs",
    "kproxy-ebpf/src/skb.rs",
    "kproxy-ebpf/src/stats.rs",
    "kproxy-ebpf/src/trace.rs",
    "kproxy-ebpf/src/udp_sockets.rs",
    // Marks the shared layouts as plain data.
    "kproxy-common/src/pod.rs",
    // bpf(2) for what aya has no call for, and mmap'ed arrays.
    "kproxy/src/dataplane/kernel/bpf.rs",
    "kproxy/src/dataplane/kernel/memory.rs",
    // getsockopt(SO_NETNS_COOKIE), which nix does not wrap.
    "kproxy/src/node/netns.rs",
    // A seccomp filter, in a test.
    "kproxy/tests/atomic/seccomp.rs",
];

/// Modules that are pure.
const PURE: [&str; 2] = ["kproxy/src/model", "kproxy/src/plan"];

/// What a pure module has no use for: IO, clocks, the kube client, kernel maps, and the modules
/// that do have such things.
const IMPURE: [&str; 17] = [
    "std::env",
    "std::fs",
    "std::io",
    "std::os",
    "std::process",
    "std::thread",
    "Instant",
    "SystemTime",
    "aya",
    "kube",
    "libc",
    "nix",
    "tokio",
    "crate::control",
    "crate::dataplane",
    "crate::node",
    "crate::source",
];

/// The crate of the layouts that programs and user space share.
const LAYOUTS: &str = "kproxy-common/";
/// Files outside it with a C layout of their own, which no map holds.
const OTHER_LAYOUTS: [&str; 0] = [];

/// All findings in one file: `path:line: what`.
pub(crate) fn check(source: &Source) -> Vec<String> {
    let rules = [module_doc, length, unsafe_code, pure_modules, layouts, unfinished];
    rules.iter().flat_map(|rule| rule(source)).collect()
}

fn finding(source: &Source, line: usize, what: &str) -> String {
    format!("{}:{line}: {what}", source.path)
}

/// Every file opens with what it is for; `tests.rs` beside a module says so by its name.
fn module_doc(source: &Source) -> Vec<String> {
    if source.path.ends_with("/tests.rs") || source.path.ends_with("/tests/mod.rs") {
        return Vec::new();
    }
    let first = source.lines.iter().find(|line| !line.is_empty() && !line.starts_with("#!["));
    let documented = first.is_some_and(|line| line.starts_with("//!"));
    if documented {
        return Vec::new();
    }
    vec![finding(source, 1, "no module documentation (//!)")]
}

fn length(source: &Source) -> Vec<String> {
    let lines = source.lines.len();
    if lines <= LONGEST_FILE {
        return Vec::new();
    }
    vec![finding(source, lines, &format!("{lines} lines; split files before {LONGEST_FILE}"))]
}

fn unsafe_code(source: &Source) -> Vec<String> {
    if UNSAFE.contains(&source.path.as_str()) {
        return Vec::new();
    }
    source
        .lines_with("unsafe")
        .map(|line| finding(source, line, "unsafe code in a file that is not named for it (tidy)"))
        .collect()
}

fn pure_modules(source: &Source) -> Vec<String> {
    if !PURE.iter().any(|module| source.path.starts_with(module)) {
        return Vec::new();
    }
    let found = |name: &'static str| {
        source.lines_with(name).map(move |line| {
            finding(source, line, &format!("`{name}` in a module that does no IO"))
        })
    };
    IMPURE.into_iter().flat_map(found).collect()
}

/// Byte layouts that cross the kernel border are in one crate.
fn layouts(source: &Source) -> Vec<String> {
    if source.path.starts_with(LAYOUTS) || OTHER_LAYOUTS.contains(&source.path.as_str()) {
        return Vec::new();
    }
    let c_layout = |(_, line): &(usize, &String)| line.contains("repr(C");
    source
        .code
        .iter()
        .enumerate()
        .filter(c_layout)
        .map(|(i, _)| finding(source, i + 1, "a C layout outside kproxy-common"))
        .collect()
}

/// Notes about unfinished work belong to the list of issues.
fn unfinished(source: &Source) -> Vec<String> {
    let notes = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
    let unfinished = |line: &String| notes.iter().any(|note| line.contains(note));
    let lines = source.lines.iter().enumerate().filter(|(_, line)| unfinished(line));
    lines.map(|(i, _)| finding(source, i + 1, "a note about unfinished work")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> String {
        check(&Source::new(path, text)).join("\n")
    }

    #[test]
    fn a_clean_file_has_no_findings() {
        assert_eq!(findings("kproxy/src/node/mod.rs", "//! Devices.\nuse std::fs;\n"), "");
    }

    #[test]
    fn each_rule_finds_what_it_is_for() {
        assert!(findings("a.rs", "fn main() {}\n").contains("a.rs:1: no module doc"));
        assert!(findings("a.rs", "//! A.\nunsafe {}\n").contains("a.rs:2: unsafe"));
        assert!(findings("kproxy/src/plan/x.rs", "//! X.\nuse std::fs;\n").contains("std::fs"));
        assert!(findings("kproxy/src/plan/x.rs", "//! X.\nuse kube::Api;\n").contains("kube"));
        assert!(findings("kproxy/src/a.rs", "//! A.\n#[repr(C)]\n").contains("a C layout"));
        assert!(findings("a.rs", &format!("//! A.\n{}", "\n".repeat(600))).contains("601 lines"));
    }

    #[test]
    fn types_of_kubernetes_are_allowed_in_the_model() {
        assert_eq!(findings("kproxy/src/model/x.rs", "//! X.\nuse k8s_openapi::api;\n"), "");
    }
}
