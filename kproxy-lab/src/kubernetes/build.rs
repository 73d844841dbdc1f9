//! Building Kubernetes programs from their Go module.

use std::env;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::fcntl::{Flock, FlockArg};
use parking_lot::Mutex;
use serde_json::Value;

use super::program::Program;
use crate::binary;

/// Builds one program into `folder`; its path. Two builds at once wait for each other.
///
/// # Errors
/// Without Go, without a network, or when the compiler fails.
pub(super) fn build(folder: &Path, program: &Program) -> Result<PathBuf> {
    let source = folder.join("src");
    fs::create_dir_all(&source).with_context(|| format!("make {}", source.display()))?;
    let lock = folder.join("lock");
    let lock = File::create(&lock).with_context(|| format!("make {}", lock.display()))?;
    let _lock = match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((lock, _held)) => {
            say("another process builds Kubernetes programs; waiting for it");
            Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| anyhow!("lock: {e}"))?
        }
    };
    let result = folder.join(program.name);
    if result.is_file() {
        return Ok(result);
    }
    let go = go()?;
    say(&format!("building {} {}, once; this takes minutes", program.name, program.version));
    write_module(&go, &source, program)?;
    run(Command::new(&go).args(["mod", "tidy"]).current_dir(&source), "downloading")?;
    let draft = folder.join(format!("{}.new", program.name));
    let mut build = Command::new(&go);
    build.args(["build", "-v", "-o"]).arg(&draft).arg(program.package).current_dir(&source);
    run(&mut build, "compiling")?;
    fs::rename(&draft, &result).with_context(|| format!("make {}", result.display()))?;
    say(&format!("built {}", result.display()));
    Ok(result)
}

fn say(line: &str) {
    eprintln!("kproxy-lab: {line}");
}

/// A module that requires the program's. Kubernetes' own go.mod replaces the staging modules by
/// folders of its repository, which a dependent has to undo.
fn write_module(go: &Path, source: &Path, program: &Program) -> Result<()> {
    let write = |name: &str, text: &str| {
        let file = source.join(name);
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))
    };
    write("go.mod", "module kproxy.local/programs\n")?;
    write("main.go", program.source)?;
    let told = module(go, source, &format!("{}@{}", program.module, program.version))?;
    let file = told["GoMod"].as_str().context("go did not say where the module is")?;
    let theirs = fs::read_to_string(file).with_context(|| format!("read {file}"))?;
    write("go.mod", &go_mod(&theirs, program))
}

/// Fetches a module, unless it is there; the folder of its files.
///
/// # Errors
/// Without Go or without a network.
pub(super) fn download(name: &str) -> Result<PathBuf> {
    let told = module(&go()?, &env::temp_dir(), name)?;
    let folder = told["Dir"].as_str().context("go did not say where the module is")?;
    Ok(folder.into())
}

fn go() -> Result<PathBuf> {
    binary::in_path("go").context("find Go: install it from go.dev/dl or a package")
}

/// Has Go fetch a module; what it says of it.
fn module(go: &Path, from: &Path, name: &str) -> Result<Value> {
    let output = Command::new(go)
        .args(["mod", "download", "-json", name])
        .current_dir(from)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("run {}", go.display()))?;
    let told: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("`go mod download {name}` said nothing of use"))?;
    if let Some(error) = told["Error"].as_str() {
        bail!("`go mod download {name}`: {error}");
    }
    Ok(told)
}

fn go_mod(theirs: &str, program: &Program) -> String {
    let go = theirs.lines().find(|line| line.starts_with("go ")).unwrap_or("go 1.26");
    let (module, version, staging) = (program.module, program.version, program.staging_version());
    let mut text =
        format!("module kproxy.local/programs\n\n{go}\n\nrequire {module} {version}\n\n");
    for line in theirs.lines() {
        let line = line.trim().trim_start_matches("replace ");
        if let Some((module, _)) = line.split_once(" => ./staging") {
            text += &format!("replace {module} => {module} {staging}\n");
        }
    }
    text
}

/// Runs a long step; its standard error names one package a line. Tells every few seconds how far
/// it is, and its last lines on failure.
fn run(command: &mut Command, what: &str) -> Result<()> {
    let mut child = command.stderr(Stdio::piped()).spawn().context("run go")?;
    let output = child.stderr.take().context("read what go says")?;
    let lines = Mutex::new(Vec::new());
    let start = Instant::now();
    let status = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                lines.lock().push(line);
            }
        });
        let mut told = start;
        while !reader.is_finished() {
            thread::sleep(Duration::from_millis(100));
            if told.elapsed() > Duration::from_secs(5) {
                told = Instant::now();
                let (packages, seconds) = (lines.lock().len(), start.elapsed().as_secs());
                say(&format!("{what}: {packages} packages in {seconds} s so far"));
            }
        }
        child.wait().context("wait for go")
    })?;
    if !status.success() {
        let lines = lines.lock();
        let tail = &lines[lines.len().saturating_sub(40)..];
        bail!("{command:?}: {status}:\n{}", tail.join("\n"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::program::PROGRAMS;

    #[test]
    fn staging_modules_are_replaced_by_their_releases() {
        let theirs = "module k8s.io/kubernetes\n\ngo 1.26.0\n\nreplace (\n\
            \tk8s.io/api => ./staging/src/k8s.io/api\n\tk8s.io/apiserver => ./staging/src/x\n)\n";
        let ours = go_mod(theirs, &PROGRAMS[0]);
        assert!(ours.contains("\nrequire k8s.io/kubernetes v1.36.3\n"), "{ours}");
        assert!(ours.contains("\ngo 1.26.0\n"), "{ours}");
        assert!(ours.contains("replace k8s.io/api => k8s.io/api v0.36.3\n"), "{ours}");
        assert_eq!(ours.matches("replace ").count(), 2, "{ours}");
    }
}
