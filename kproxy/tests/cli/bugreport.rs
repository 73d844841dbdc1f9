//! `kproxy bugreport`: what can be had is there, what cannot is a line, and no secret is in it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use flate2::read::GzDecoder;
use serde_json::json;
use tempfile::TempDir;

use super::kproxy;
use super::maps::{fill, with_own_bpffs};

/// Each is somewhere that kproxy reads, or could.
const SECRETS: [&str; 6] = [
    "hunter-of-the-url",
    "c2VjcmV0LWtleQ",
    "hunter-of-the-token",
    "hunter-of-the-env",
    "hunter-of-the-log",
    "aHVudGVyLWp3dA",
];

/// A run folder of a daemon that was started with secrets all over.
fn run_folder(folder: &Path) {
    let kubeconfig = folder.join("kubeconfig");
    let text = format!(
        "users:\n- name: a\n  user:\n    token: {}\n    client-key-data: LS0tLS1CRUdJTi{}\n",
        SECRETS[2], SECRETS[1]
    );
    fs::write(&kubeconfig, text).unwrap();
    let master = format!("--master=https://admin:{}@127.0.0.1:1", SECRETS[0]);
    let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
    // Nobody listens there.
    let metrics = "--metrics-bind-address=127.0.0.1:1";
    let arguments = ["kproxy", "run", &master, &kubeconfig, metrics, "--hostname-override=n1"];
    let started = json!({"arguments": arguments, "folder": "/"});
    fs::write(folder.join("started.json"), started.to_string()).unwrap();
    let what = format!(
        "answers 401 to Authorization: Bearer {}, eyJhbGciOiJIUzI1NiJ9.{}.c2ln",
        SECRETS[4], SECRETS[5]
    );
    let problems = json!([{"object": "API server", "what": what, "remedy": "give it -----BEGIN RSA PRIVATE KEY-----\nc2VjcmV0LWtleQ\n-----END RSA PRIVATE KEY-----"}]);
    fs::write(folder.join("problems.json"), problems.to_string()).unwrap();
}

/// Runs it, and reads the archive.
fn archive(bpffs: &Path) -> (BTreeMap<String, String>, String) {
    let folder = TempDir::new().unwrap();
    run_folder(folder.path());
    let path = folder.path().join("a.tar.gz");
    let mut command = kproxy();
    command.arg("bugreport").arg("--output").arg(&path).arg("--run-dir").arg(folder.path());
    command.arg("--bpffs-root").arg(bpffs).env("KUBE_TOKEN", SECRETS[3]);
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let mut archive = tar::Archive::new(GzDecoder::new(fs::File::open(&path).unwrap()));
    let files = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().file_name().unwrap().to_string_lossy().into_owned();
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        (name, content)
    });
    let files = files.collect();
    // Nothing is overwritten.
    let again = command.output().unwrap();
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("name another file with --output"));
    (files, text(&output.stdout) + &text(&output.stderr))
}

#[track_caller]
fn assert_no_secret(files: &BTreeMap<String, String>, printed: &str) {
    for secret in SECRETS {
        for (name, content) in files {
            assert!(!content.contains(secret), "{secret} is in {name}: {content}");
        }
        assert!(!printed.contains(secret), "{secret}: {printed}");
    }
}

#[test]
fn an_archive_of_maps_has_everything_but_secrets() {
    with_own_bpffs(|bpffs| {
        fill(bpffs);
        let (files, printed) = archive(bpffs);
        assert_no_secret(&files, &printed);
        for (name, part) in [
            ("summary.txt", "the daemon is not running"),
            ("version.json", "\"abi_version\""),
            ("status.json", "answers 401 to Authorization: [removed]"),
            ("verify.json", "\"differences\""),
            ("dump.json", "10.244.2.9"),
            ("programs.json", "["),
            ("config.json", "clientConnection.kubeconfig"),
            ("kernel.txt", "/sys/kernel/btf/vmlinux"),
            ("sysctls.txt", "net/ipv4/ip_forward = "),
            ("mounts.txt", " - bpf "),
            ("devices.txt", "addresses"),
        ] {
            let content = files.get(name).unwrap_or_else(|| panic!("no {name}: {printed}"));
            assert!(content.contains(part), "{name}: {content}");
        }
        for name in files.keys().filter(|name| name.ends_with(".json")) {
            let parsed: Result<serde_json::Value, _> = serde_json::from_str(&files[name]);
            assert!(parsed.is_ok(), "{name}: {parsed:?}");
        }
    });
}

#[test]
fn what_cannot_be_had_is_a_line() {
    let (files, printed) = archive(Path::new("/nonexistent"));
    assert_no_secret(&files, &printed);
    assert!(!files.contains_key("dump.json") && files.contains_key("kernel.txt"), "{printed}");
    for part in
        ["dump.json", "no BPF file system at", "ask 127.0.0.1:1 for /metrics", " could not be had"]
    {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    let summary = &files["summary.txt"];
    assert!(
        summary.contains("metrics.txt") && summary.contains("no BPF file system at"),
        "{summary}"
    );
}
