//! Nothing is left behind, however a lab ends, and labs do not meet.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use kproxy_lab::{Family, Found, Lab, POD_PORT, Probe, clean_dead, list, poll_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What of a lab is on this machine.
fn traces(id: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/run/netns").unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with(&format!("kpl-{id}-")) {
            found.push(format!("namespace {name}"));
        }
    }
    for line in fs::read_to_string("/proc/self/mountinfo").unwrap().lines() {
        if line.contains(&format!("/kproxy-lab/{id}/")) {
            found.push(format!("mount {line}"));
        }
        let at = line.split(' ').nth(4).unwrap();
        let group = Path::new(at).join(format!("kproxy-lab-{id}"));
        if line.contains(" - cgroup2 ") && group.exists() {
            found.push(format!("cgroup {}", group.display()));
        }
    }
    if Path::new("/run/kproxy-lab").join(id).exists() {
        found.push("its folder".into());
    }
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        // A zombie's command line is empty: it waits for its parent only.
        let command = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        let marks = [format!("kpl-{id}-"), format!("/kproxy-lab/{id}/"), format!("watch\0{id}")];
        if marks.iter().any(|mark| command.contains(mark)) {
            found.push(format!("process {command:?}"));
        }
    }
    found
}

fn wait_until_gone(id: &str) {
    wait_until(|| traces(id).is_empty(), id);
}

fn wait_until(condition: impl Fn() -> bool, id: &str) {
    let (patience, pause) = (Duration::from_secs(60), Duration::from_millis(10));
    let holds = poll_until(patience, pause, || Ok(condition()), |holds| *holds).unwrap();
    assert!(holds, "{:?}", traces(id));
}

/// A lab in a process of its own, and its id.
fn lab_process(arguments: &[&str]) -> (Child, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kproxy-lab"))
        .args(["up", "--nodes", "2"])
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let id = line.split(' ').nth(1).unwrap().to_owned();
    (child, id)
}

#[test]
fn a_dropped_lab_and_one_that_failed_leave_nothing() {
    let lab = Lab::builder().nodes(2).build().unwrap();
    let id = lab.id().to_owned();
    // A process that would not end on its own, and a mount inside the lab's folder.
    let mut sleeper = lab.pod("n1", "a").command("sleep").unwrap().arg("1000").spawn().unwrap();
    assert!(traces(&id).len() > 10, "{:?}", traces(&id));
    drop(lab);
    assert_eq!(traces(&id), Vec::<String>::new());
    sleeper.wait().unwrap();

    let id = std::thread::spawn(|| {
        let lab = Lab::builder().build().unwrap();
        std::panic::panic_any(lab.id().to_owned())
    });
    let id = *id.join().unwrap_err().downcast::<String>().unwrap();
    assert_eq!(traces(&id), Vec::<String>::new());

    let id = std::thread::spawn(|| Lab::builder().pods(&["no-pod-name"]).build().unwrap_err());
    assert!(id.join().unwrap().to_string().contains("no-pod-name"));
}

#[test]
fn a_killed_or_interrupted_process_leaves_nothing() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let (mut child, id) = lab_process(&["--proxy", "nftables"]);
        assert!(traces(&id).iter().any(|trace| trace.contains("etcd")), "{:?}", traces(&id));
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        child.wait().unwrap();
        if signal == Signal::SIGKILL {
            // The watcher does it, just after.
            wait_until_gone(&id);
        } else {
            let left = traces(&id);
            // The watcher itself may need a moment to see that nothing is left to do.
            assert!(left.iter().all(|trace| trace.contains("watch")), "{signal}: {left:?}");
            wait_until_gone(&id);
        }
    }
}

#[test]
fn a_lab_that_is_interrupted_while_it_is_made_leaves_nothing() {
    for (signal, milliseconds) in
        (0..10).flat_map(|step| [(Signal::SIGINT, step * 25), (Signal::SIGKILL, step * 25)])
    {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kproxy-lab"))
            .args(["up", "--nodes", "2"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let id = loop {
            let owned = |found: &Found| found.owner.as_ref().is_some_and(|o| o.pid == child.id());
            if let Some(found) = list().unwrap().into_iter().find(owned) {
                break found.id;
            }
        };
        sleep(Duration::from_millis(milliseconds));
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        let status = child.wait().unwrap();
        if signal == Signal::SIGINT {
            assert_eq!(status.code(), Some(130), "after {milliseconds} ms");
        } else {
            // Killed before its watcher was there: the folder with its name on it is all that was
            // made, and the next lab removes it.
            wait_until(|| traces(&id).iter().all(|trace| trace == "its folder"), &id);
            clean_dead().unwrap();
        }
        wait_until_gone(&id);
    }
}

#[test]
fn a_lab_whose_watcher_died_too_is_found_later() {
    let (mut child, id) = lab_process(&[]);
    let watch = format!("watch\0{id}");
    let watcher = fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let command = fs::read_to_string(entry.path().join("cmdline")).ok()?;
        let pid = entry.file_name().to_str()?.parse().ok()?;
        command.contains(&watch).then_some(pid)
    });
    kill(Pid::from_raw(watcher.unwrap()), Signal::SIGKILL).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_kproxy-lab")).arg("clean").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    wait_until_gone(&id);
}

#[test]
fn labs_side_by_side_have_the_same_addresses_and_never_meet() {
    let (mut other_process, id) = lab_process(&[]);
    let [one, two] = [(); 2].map(|()| Lab::builder().build().unwrap());
    one.pod("n1", "a").serve(9_000).unwrap();
    let to = one.pod("n1", "a").at(Family::V4, 9_000);
    assert_eq!(to, two.pod("n1", "a").at(Family::V4, 9_000));
    assert!(one.client().probe(Probe::tcp(to)).unwrap().all_answered());
    assert!(two.client().probe(Probe::tcp(to)).unwrap().all_refused());
    drop(one);
    let to = two.pod("n1", "a").at(Family::V6, POD_PORT);
    assert!(two.client().probe(Probe::udp(to)).unwrap().all_answered());
    assert!(!traces(&id).is_empty());
    kill(Pid::from_raw(other_process.id().cast_signed()), Signal::SIGTERM).unwrap();
    other_process.wait().unwrap();
    wait_until_gone(&id);
}

#[test]
fn a_kept_lab_lives_on_until_it_is_cleaned() {
    let lab = Lab::builder().build().unwrap();
    let (client, to) = (lab.node("n1"), lab.pod("n1", "a").at(Family::V4, POD_PORT));
    assert!(client.probe(Probe::tcp(to)).unwrap().all_answered());
    let id = lab.keep().unwrap();
    let clean = |ids: &[&str]| {
        let command =
            Command::new(env!("CARGO_BIN_EXE_kproxy-lab")).arg("clean").args(ids).output();
        assert!(command.unwrap().status.success());
    };
    clean(&[]);
    assert!(client.probe(Probe::tcp(to)).unwrap().all_answered());
    clean(&[&id]);
    drop(client);
    wait_until_gone(&id);
}
