//! The layers of a crate: which of its parts may import which.

use super::imports::Imports;

/// A part of a crate, and the parts that it may import from. A part is a file, or a folder with a
/// slash at its end, below `src/`; of several that hold a file the longest counts. Files of a part
/// may import each other if it names itself.
pub(super) type Layer = (&'static str, &'static [&'static str]);

/// The crates whose layers are written down.
pub(super) const DECLARED: [(&str, &[Layer]); 3] =
    [("kproxy", &KPROXY), ("kproxy-ebpf", &EBPF), ("kproxy-lab", &LAB)];

/// What is typed on top, what is pure at the bottom; `errors` and `timing` are for all.
const KPROXY: [Layer; 14] = [
    ("lib.rs", &[]),
    (
        "cli/",
        &[
            "cli/",
            "daemon/",
            "config/",
            "source/",
            "dataplane/",
            "node/",
            "plan/",
            "model/",
            "errors.rs",
            "timing.rs",
        ],
    ),
    (
        "daemon/",
        &[
            "daemon/",
            "config/",
            "server/",
            "control/",
            "metrics/",
            "source/",
            "dataplane/",
            "node/",
            "plan/",
            "model/",
            "errors.rs",
            "timing.rs",
        ],
    ),
    (
        "server/",
        &[
            "server/",
            "control/",
            "metrics/",
            "dataplane/",
            "plan/",
            "model/",
            "errors.rs",
            "timing.rs",
        ],
    ),
    (
        "control/",
        &[
            "control/",
            "metrics/",
            "source/",
            "dataplane/",
            "plan/",
            "model/",
            "errors.rs",
            "timing.rs",
        ],
    ),
    ("config/", &["config/", "errors.rs"]),
    ("metrics/", &["metrics/", "dataplane/", "plan/", "model/", "errors.rs", "timing.rs"]),
    ("source/", &["source/", "node/", "plan/", "model/", "errors.rs", "timing.rs"]),
    ("dataplane/", &["dataplane/", "node/", "plan/", "model/", "errors.rs", "timing.rs"]),
    ("node/", &["node/", "plan/", "model/", "errors.rs", "timing.rs"]),
    ("plan/", &["plan/", "model/"]),
    ("model/", &["model/"]),
    ("errors.rs", &[]),
    ("timing.rs", &[]),
];

/// The programs: packet memory and maps at the bottom, hooks on top; no hook imports another.
const EBPF: [Layer; 16] = [
    ("main.rs", &[]),
    ("kernel.rs", &[]),
    ("maps.rs", &[]),
    ("skb.rs", &[]),
    ("udp_sockets.rs", &["kernel.rs"]),
    ("query.rs", &["kernel.rs", "skb.rs"]),
    ("stats.rs", &["kernel.rs", "maps.rs"]),
    ("trace.rs", &["stats.rs", "kernel.rs", "maps.rs", "skb.rs"]),
    ("verdict.rs", &["stats.rs"]),
    ("packet/", &["packet/", "kernel.rs", "skb.rs"]),
    ("service/", &["service/", "kernel.rs", "maps.rs"]),
    ("path/", &["path/", "packet/", "verdict.rs", "stats.rs", "kernel.rs", "maps.rs", "skb.rs"]),
    (
        "flow/",
        &[
            "flow/",
            "path/",
            "service/",
            "packet/",
            "verdict.rs",
            "trace.rs",
            "stats.rs",
            "kernel.rs",
            "maps.rs",
            "skb.rs",
        ],
    ),
    (
        "hooks/tc.rs",
        &[
            "flow/",
            "path/",
            "service/",
            "packet/",
            "verdict.rs",
            "trace.rs",
            "stats.rs",
            "kernel.rs",
            "maps.rs",
            "skb.rs",
        ],
    ),
    (
        "hooks/socket/",
        &[
            "hooks/socket/",
            "flow/filter.rs",
            "service/",
            "verdict.rs",
            "trace.rs",
            "stats.rs",
            "kernel.rs",
            "maps.rs",
        ],
    ),
    (
        "hooks/",
        &[
            "hooks/tc.rs",
            "flow/",
            "path/",
            "service/",
            "packet/",
            "verdict.rs",
            "trace.rs",
            "stats.rs",
            "kernel.rs",
            "maps.rs",
            "skb.rs",
            "query.rs",
            "udp_sockets.rs",
        ],
    ),
];

/// The command line on the lab, the lab on what runs in it, and below that the machine.
const LAB: [Layer; 22] = [
    ("lib.rs", &[]),
    (
        "cli/",
        &[
            "cli/",
            "lab/",
            "lifetime/",
            "proxy/",
            "kubernetes/",
            "agent/",
            "wiring/",
            "protocol.rs",
            "traffic/",
            "layout.rs",
            "netns.rs",
            "cgroup.rs",
        ],
    ),
    (
        "lab/",
        &[
            "lab/",
            "control/",
            "proxy/",
            "place/",
            "lifetime/",
            "wiring/",
            "layout.rs",
            "netns.rs",
            "cgroup.rs",
            "mounts.rs",
            "binary.rs",
        ],
    ),
    (
        "control/",
        &[
            "control/",
            "manifest.rs",
            "place/",
            "process.rs",
            "kubernetes/",
            "layout.rs",
            "netns.rs",
            "mounts.rs",
            "random.rs",
        ],
    ),
    (
        "proxy/",
        &["proxy/", "place/", "process.rs", "kubernetes/", "layout.rs", "netns.rs", "binary.rs"],
    ),
    ("image/", &["image/", "binary.rs"]),
    ("manifest.rs", &["place/", "layout.rs"]),
    (
        "place/",
        &["place/", "process.rs", "protocol.rs", "traffic/", "layout.rs", "binary.rs", "wait.rs"],
    ),
    ("agent/", &["agent/", "protocol.rs", "traffic/", "netns.rs", "cgroup.rs"]),
    (
        "lifetime/",
        &["lifetime/", "layout.rs", "netns.rs", "cgroup.rs", "mounts.rs", "binary.rs", "random.rs"],
    ),
    ("wiring/", &["wiring/", "layout.rs"]),
    ("kubernetes/", &["kubernetes/", "binary.rs"]),
    ("protocol.rs", &["traffic/"]),
    ("traffic/", &["traffic/"]),
    ("process.rs", &["wait.rs"]),
    ("netns.rs", &["cgroup.rs", "layout.rs"]),
    ("cgroup.rs", &["mounts.rs", "wait.rs"]),
    ("mounts.rs", &[]),
    ("binary.rs", &[]),
    ("layout.rs", &[]),
    ("random.rs", &[]),
    ("wait.rs", &[]),
];

/// Imports that no layer allows, files that are in none, and parts that hold no file.
pub(super) fn check(name: &str, imports: &Imports, layers: &[Layer]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in imports.files.iter().filter(|file| layer_of(file, layers).is_none()) {
        findings.push(format!("{name}: {file} is in no layer"));
    }
    for import in &imports.imports {
        let (from, to) = (&imports.files[import.from], &imports.files[import.to]);
        let Some((layer, allowed)) = layer_of(from, layers) else { continue };
        if !allowed.iter().any(|part| holds(part, to)) {
            findings.push(format!("{name}: {}; `{layer}` may not", imports.line(import)));
        }
    }
    let parts = layers.iter().flat_map(|(layer, allowed)| allowed.iter().chain([layer]));
    let mut idle: Vec<&&str> =
        parts.filter(|part| !imports.files.iter().any(|file| holds(part, file))).collect();
    idle.sort();
    idle.dedup();
    findings.extend(idle.iter().map(|part| format!("{name}: no file is in `{part}`")));
    findings
}

fn layer_of<'l>(file: &str, layers: &'l [Layer]) -> Option<&'l Layer> {
    layers.iter().filter(|(part, _)| holds(part, file)).max_by_key(|(part, _)| part.len())
}

fn holds(part: &str, file: &str) -> bool {
    if part.ends_with('/') { file.starts_with(part) } else { file == part }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCES: [(&str, &str); 6] = [
        ("main.rs", "mod hooks;\nmod flow;\nmod maps;\n"),
        ("maps.rs", "pub fn map() {}\n"),
        ("flow.rs", "use crate::maps::map;\npub fn track() { crate::hooks::tc::run() }\n"),
        ("hooks/mod.rs", "mod tc;\nmod node;\n"),
        ("hooks/tc.rs", "pub fn run() {}\n"),
        ("hooks/node.rs", "use super::tc::run;\nuse crate::{flow::track, maps::map};\n"),
    ];

    fn findings(layers: &[Layer]) -> String {
        check("k", &Imports::read(&SOURCES).unwrap(), layers).join("\n")
    }

    #[test]
    fn an_import_outside_the_layers_is_found() {
        let layers: [Layer; 5] = [
            ("main.rs", &[]),
            ("hooks/tc.rs", &[]),
            ("hooks/", &["hooks/tc.rs", "flow.rs", "maps.rs"]),
            ("flow.rs", &["maps.rs"]),
            ("maps.rs", &[]),
        ];
        assert_eq!(
            findings(&layers),
            "k: flow.rs:2 imports hooks/tc.rs: crate::hooks::tc::run; `flow.rs` may not"
        );
    }

    #[test]
    fn a_part_imports_itself_only_if_it_says_so() {
        let with = |hooks: &'static [&'static str]| {
            findings(&[
                ("main.rs", &[]),
                ("hooks/", hooks),
                ("flow.rs", &["maps.rs", "hooks/"]),
                ("maps.rs", &[]),
            ])
        };
        assert_eq!(with(&["hooks/", "flow.rs", "maps.rs"]), "");
        assert!(with(&["flow.rs", "maps.rs"]).contains("hooks/node.rs:1 imports hooks/tc.rs"));
    }

    #[test]
    fn files_without_a_layer_and_layers_without_a_file_are_found() {
        let found = findings(&[("main.rs", &[]), ("hooks/", &["hooks/", "flow.rs", "map/"])]);
        assert!(found.contains("k: maps.rs is in no layer"), "{found}");
        assert!(found.contains("k: no file is in `map/`"), "{found}");
    }
}
