//! Boots a kernel in QEMU and follows what its steps say.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::fetch::Kernel;
use crate::{run, say};

/// How often to look.
const TICK: Duration = Duration::from_millis(250);
/// How often a silent step says that it is still running.
const HEARTBEAT: Duration = Duration::from_secs(60);
/// For booting, and for what a step takes beyond its limit to be ended.
const SPARE: Duration = Duration::from_secs(180);
/// For all of them: verification takes 2 GB with the tests' maps.
const MEMORY: &str = "3072";
/// Nothing is zeroed for safety's sake, as this is emulated; a kernel that fails ends the guest.
const ARGUMENTS: &str = "console=ttyS0 rdinit=/init panic=-1 oops=panic quiet loglevel=5 \
                         random.trust_cpu=1 mitigations=off init_on_alloc=0 no_timer_check \
                         tsc=reliable nowatchdog apparmor=0 selinux=0";

/// One thing that a guest does.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// Its name: one word.
    pub(super) name: String,
    /// How long it may take.
    pub(super) limit: Duration,
    /// A line of shell.
    pub(super) command: String,
}

impl Step {
    pub(super) fn new(name: impl Into<String>, seconds: u64, command: impl Into<String>) -> Self {
        let (name, command) = (name.into(), command.into());
        Self { name, limit: Duration::from_secs(seconds), command }
    }
}

/// What came of a step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Ended {
    /// Its name.
    pub(super) name: String,
    /// What it printed.
    pub(super) text: String,
    /// Its exit code; `None`: the guest ended first.
    pub(super) code: Option<i32>,
    /// Seconds that it took.
    pub(super) seconds: u64,
}

/// The steps as the guest's init reads them.
pub(super) fn list(steps: &[Step]) -> String {
    let line = |step: &Step| format!("{}\t{}\t{}\n", step.name, step.limit.as_secs(), step.command);
    steps.iter().map(line).collect()
}

/// Boots a kernel with these archives and runs its steps.
///
/// # Errors
/// When QEMU cannot be started, or the guest never comes so far as to run a step.
pub(super) fn boot(
    kernel: &Kernel,
    work: &Path,
    archives: &[PathBuf],
    steps: &[Step],
) -> Result<Vec<Ended>> {
    let initrd = work.join("initrd");
    let mut all = fs::File::create(&initrd).context("make the initrd")?;
    for archive in archives {
        let mut part = fs::File::open(archive).with_context(|| archive.display().to_string())?;
        std::io::copy(&mut part, &mut all).context("put the initrd together")?;
    }
    let (console, results) = (work.join("console"), work.join("results"));
    let mut guest = start(kernel, &initrd, &console, &results)?;
    let followed = follow(&mut guest, &results, steps);
    let _has_ended = guest.kill();
    let _status = guest.wait();
    let text = read(&results);
    let ended = parse(&text);
    if ended.is_empty() || followed.is_err() || !text.contains("@done") {
        let console = read(&console);
        let lines: Vec<&str> = console.lines().collect();
        for line in &lines[lines.len().saturating_sub(15)..] {
            say::line(format!("console: {line}"));
        }
    }
    followed?;
    if ended.is_empty() {
        bail!("Linux {} ended before its first step; its console is above", kernel.release);
    }
    Ok(ended)
}

fn start(kernel: &Kernel, initrd: &Path, console: &Path, results: &Path) -> Result<Child> {
    let file = |path: &Path| format!("file:{}", path.display());
    // It ends with this command, however that ends.
    let mut qemu = Command::new("setpriv");
    qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-net", "none"]);
    // One thread: with several QEMU may lose the race when a kernel patches its own code.
    qemu.args(["-accel", "tcg,thread=single,tb-size=512", "-M", "pc", "-smp", "1"]);
    // Copying strings is slow where it is one instruction.
    qemu.args(["-cpu", "max,la57=off,-erms", "-m", MEMORY, "-append", ARGUMENTS]);
    qemu.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(initrd);
    qemu.args(["-serial", &file(console), "-serial", &file(results)]);
    qemu.stdin(Stdio::null()).stdout(Stdio::null());
    qemu.spawn().with_context(|| format!("start `{}`", run::command_line(&qemu)))
}

/// Tells what happens until the guest ends.
fn follow(guest: &mut Child, results: &Path, steps: &[Step]) -> Result<()> {
    let limit = SPARE + steps.iter().map(|step| step.limit).sum::<Duration>();
    let (started, mut told, mut spoken) = (Instant::now(), 0, Instant::now());
    while guest.try_wait().context("wait for QEMU")?.is_none() {
        thread::sleep(TICK);
        let text = read(results);
        let ended = parse(&text);
        for step in ended.iter().filter(|step| step.code.is_some()).skip(told) {
            let how = if step.code == Some(0) { "ok" } else { "failed" };
            say::line(format!("{:<50} {how:<6} {} s", step.name, step.seconds));
            (told, spoken) = (told + 1, Instant::now());
        }
        if spoken.elapsed() > HEARTBEAT {
            let at_work = ended.last().map_or("booting", |step| step.name.as_str());
            say::line(format!("{at_work}: {} in all", say::duration(started.elapsed())));
            spoken = Instant::now();
        }
        if started.elapsed() > limit {
            bail!("the guest did not end within {}", say::duration(limit));
        }
    }
    Ok(())
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// What the guest has said so far.
fn parse(text: &str) -> Vec<Ended> {
    let mut ended: Vec<Ended> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match (words.as_slice(), ended.last_mut()) {
            (["@begin", name], _) => ended.push(Ended {
                name: (*name).to_owned(),
                text: String::new(),
                code: None,
                seconds: 0,
            }),
            (["@end", _, code, from, until], Some(step)) => {
                let second = |word: &str| word.parse::<u64>().unwrap_or_default();
                step.code = code.parse().ok();
                step.seconds = second(until).saturating_sub(second(from));
            }
            (_, Some(step)) if step.code.is_none() => {
                step.text += line;
                step.text.push('\n');
            }
            _ => {}
        }
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read_also_when_the_guest_ends_within_one() {
        let text = "@begin facts\nfact btf yes\n\n@end facts 0 3 4\n@begin rows\nrunning 2 tests\n";
        let step = |name: &str, text: &str, code, seconds| Ended {
            name: name.into(),
            text: text.into(),
            code,
            seconds,
        };
        let wanted = [
            step("facts", "fact btf yes\n\n", Some(0), 1),
            step("rows", "running 2 tests\n", None, 0),
        ];
        assert_eq!(parse(text), wanted);
        assert_eq!(parse(""), []);
    }
}
