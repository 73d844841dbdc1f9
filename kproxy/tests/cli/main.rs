//! The binary: exit codes, sentences, what goes where, and the tables of real maps.

mod any_bytes;
mod bugreport;
mod compare;
mod maps;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use assert_cmd::assert::OutputAssertExt as _;
use kproxy_common::abi::ABI_VERSION;
use tempfile::TempDir;

fn kproxy() -> Command {
    Command::new(assert_cmd::cargo::cargo_bin!("kproxy"))
}

/// Runs to the end and returns standard error, after checking the code and that no data was
/// printed.
#[track_caller]
fn refused(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "");
    stderr
}

/// One sentence that begins with the name of the program.
#[track_caller]
fn one_sentence(stderr: &str, part: &str) {
    assert!(stderr.starts_with("kproxy: ") && stderr.contains(part), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

/// Runs a shell script in a mount namespace of its own with an empty bpffs at `$1`; the binary is
/// `$2`. `None` without root.
fn with_bpffs(script: &str) -> Option<Output> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: mounting a BPF file system needs root");
        return None;
    }
    let folder = TempDir::new().unwrap();
    // For others too: a script may give up its rights.
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let (bpffs, binary) = (folder.path().join("bpf"), folder.path().join("kproxy"));
    fs::create_dir(&bpffs).unwrap();
    fs::copy(assert_cmd::cargo::cargo_bin!("kproxy"), &binary).unwrap();
    let script = format!("set -e; mount -t bpf bpf \"$1\"; {script}");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, "sh"]).args([&bpffs, &binary]);
    Some(command.output().unwrap())
}

#[test]
fn without_a_bpffs_it_says_what_to_do() {
    let folder = TempDir::new().unwrap();
    for place in [folder.path(), Path::new("/nonexistent")] {
        for verb in [&["status"][..], &["dump", "all"], &["dump", "flows", "-o", "json"]] {
            let stderr = refused(kproxy().args(verb).arg("--bpffs-root").arg(place));
            one_sentence(&stderr, "no BPF file system at ");
            assert!(stderr.contains("--bpffs-root"), "{stderr}");
        }
    }
}

#[test]
fn without_pins_it_says_what_to_do() {
    let Some(output) = with_bpffs("exec \"$2\" status --bpffs-root \"$1\"") else { return };
    let stderr = String::from_utf8(output.stderr).unwrap();
    one_sentence(&stderr, "no kproxy maps at ");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn pins_of_another_version_are_named() {
    let script = "mkdir -p \"$1\"/kproxy/v999/maps; exec \"$2\" dump all --bpffs-root \"$1\"";
    let Some(output) = with_bpffs(script) else { return };
    let stderr = String::from_utf8(output.stderr).unwrap();
    one_sentence(&stderr, "layout version 999");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn without_rights_it_says_what_to_do() {
    let script = format!(
        "mkdir -p \"$1\"/kproxy/v{ABI_VERSION}/maps; chmod 700 \"$1\"/kproxy; \
         exec setpriv --reuid 65534 --regid 65534 --clear-groups \
         \"$2\" dump services --bpffs-root \"$1\""
    );
    let Some(output) = with_bpffs(&script) else { return };
    let stderr = String::from_utf8(output.stderr).unwrap();
    one_sentence(&stderr, "no permission to read ");
    assert!(stderr.contains("root"), "{stderr}");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn wrong_usage_exits_with_2() {
    for (words, part) in [
        (&["dump"][..], "TABLE"),
        (&["dump", "routes"], "frontends"),
        (&["dump", "all", "--address", "10.96"], "10.96.0.0/16"),
        (&["dump", "all", "--port", "70000"], "65535"),
        (&["run", "--cluster-cidr", "10.0.0.0/8,10.1.0.0/16"], "clusterCIDR (--cluster-cidr)"),
        (&["run", "--conntrack-min", "many"], "--conntrack-min"),
        (&["config", "--config", "/nonexistent/kube-proxy.yaml"], "/nonexistent/kube-proxy.yaml"),
        (&["run", "--max-flows", "1"], "64Mi"),
        (&["run", "--socket-lb-skip-pod-cidrs", "10.244.7.0/24,10.244.8.1"], "`10.244.8.1`"),
        (&["run", "--socket-lb-skip-namespaces", "mesh,"], "name of a namespace"),
        (&["run", "--manifests", "a", "--kubeconfig", "b"], "--kubeconfig"),
        (&["run", "--hostname-override", " "], "blank"),
        (&["version", "--log-level", "info=no=way"], "--log-level"),
        (&["nonsense"], "nonsense"),
    ] {
        let stderr = refused(kproxy().args(words));
        assert!(stderr.contains(part), "{words:?}: {stderr}");
    }
}

#[test]
fn version_and_help_are_data() {
    kproxy().arg("version").assert().success().stdout(format!(
        "kproxy {} (map layout version {})\n",
        env!("CARGO_PKG_VERSION"),
        ABI_VERSION
    ));
    let json = kproxy().args(["version", "-o", "json"]).output().unwrap().stdout;
    let version: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(version["abi_version"], ABI_VERSION);
    for verb in ["run", "config", "dump", "status", "cleanup", "version", "completions", "explain"]
    {
        let help = kproxy().args([verb, "--help"]).assert().success();
        assert!(String::from_utf8_lossy(&help.get_output().stdout).contains("Usage: kproxy"));
    }
}

#[test]
fn completions_know_every_verb_and_a_lost_reader_is_no_error() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = kproxy().args(["completions", shell]).assert().success();
        let script = String::from_utf8_lossy(&script.get_output().stdout).into_owned();
        assert!(
            script.contains("KPROXY_COMPLETE") && script.contains("kproxy"),
            "{shell}: {script}"
        );
    }
    // What the script of bash asks at a key.
    let asked = |words: &[&str]| {
        let mut command = kproxy();
        command
            .env("KPROXY_COMPLETE", "bash")
            .env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string());
        let output = command.arg("--").args(words).assert().success().get_output().stdout.clone();
        String::from_utf8_lossy(&output).into_owned()
    };
    let verbs = asked(&["kproxy", ""]);
    for verb in ["run", "config", "dump", "explain", "status", "cleanup", "version"] {
        assert!(verbs.lines().any(|line| line.trim() == verb), "{verb}: {verbs}");
    }
    assert!(asked(&["kproxy", "dump", "--serv"]).contains("--service"));
    let pages = tempfile::tempdir().unwrap();
    kproxy().arg("man").arg(pages.path()).assert().success();
    let page = fs::read_to_string(pages.path().join("kproxy-explain.1")).unwrap();
    assert!(page.contains("simulate"), "{page}");
    for verb in [&["completions", "bash"][..], &["version"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = kproxy().args(verb).stdout(writer).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
}

/// A process named kproxy, which ends with the test.
struct Daemon(std::process::Child);

impl Daemon {
    fn start(folder: &Path) -> Self {
        let binary = folder.join("kproxy");
        let sleep =
            ["/bin/sleep", "/usr/bin/sleep"].into_iter().find(|path| Path::new(path).exists());
        fs::copy(sleep.unwrap(), &binary).unwrap();
        Self(Command::new(binary).arg("600").spawn().unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn cleanup_refuses_while_the_daemon_runs() {
    let folder = TempDir::new().unwrap();
    let run_dir = folder.path().join("run");
    fs::create_dir(&run_dir).unwrap();
    let daemon = Daemon::start(folder.path());
    let pid = daemon.0.id();
    fs::write(run_dir.join("kproxy.pid"), format!("{pid}\n")).unwrap();
    let mut cleanup = kproxy();
    cleanup.arg("cleanup").arg("--run-dir").arg(&run_dir);
    cleanup.arg("--bpffs-root").arg(folder.path().join("bpf"));
    let stderr = refused(&mut cleanup);
    one_sentence(&stderr, &format!("pid {pid}"));
    assert!(stderr.contains("--force"), "{stderr}");
    assert!(run_dir.join("kproxy.pid").exists());
}
