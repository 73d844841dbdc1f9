//! `kproxy trace` and `kproxy top` on a node at work, with the daemon alive and dead.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use kproxy_lab::{Family, Probe, Transport};
use serde_json::{Value, json};

use crate::common::{Cluster, NODE_PORT, PATIENCE, PORT, SILENCE, at, vips};

/// A `kproxy trace -o json` that runs.
struct Tracer {
    child: Child,
    lines: Receiver<Value>,
}

impl Tracer {
    /// On n1, listening once its first event has come: `provoke` makes events.
    fn start(cluster: &Cluster, options: &[&str], provoke: impl Fn()) -> Self {
        let mut command: Command = cluster.lab.kproxy_command("n1", "trace").unwrap();
        command.args(["-o", "json"]).args(options).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line);
                let value = value.unwrap_or_else(|error| panic!("no JSON: {error}: {line}"));
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        let tracer = Self { child, lines };
        let mut first = None;
        for _ in 0..60 {
            provoke();
            first = tracer.lines.recv_timeout(SILENCE).ok();
            if first.is_some() {
                break;
            }
        }
        assert!(first.is_some(), "nothing is told\n{}", cluster.logs());
        tracer
    }

    /// The next event that fits.
    fn wait(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let mut seen = Vec::new();
        while let Ok(event) = self.lines.recv_timeout(PATIENCE) {
            if fits(&event) {
                return event;
            }
            seen.push(event);
        }
        panic!("{what}: {seen:?}");
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // It may have ended.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

#[test]
fn connections_are_told_as_they_are_decided_with_the_daemon_alive_and_dead() {
    let cluster = Cluster::new(&["n1/a", "n2/a"]);
    let (pod, client) = (cluster.lab.pod("n1", "b"), cluster.lab.client());
    let (node, vip) = (cluster.lab.node("n1").ip(Family::V4), vips()[0]);
    let dial = |to| pod.probe(Probe::tcp(to)).unwrap();
    let tracer = Tracer::start(&cluster, &["--service", "web"], || drop(dial(vip)));
    let second = cluster.try_kproxy("n1", &["trace", "--timeout", "1s"]);
    let stderr = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("another `kproxy trace`"), "{stderr}");

    for is_alive in [true, false] {
        assert!(dial(vip).all_answered());
        let event = tracer.wait("a socket", |event| event["hook"] == "connect");
        assert_eq!(event["verdict"], "translated", "{event}");
        assert_eq!(event["frontend"], vip.to_string(), "{event}");
        assert_eq!(event["source"], pod.ip(Family::V4).to_string(), "{event}");
        assert_eq!(event["service"]["name"], "web", "{event}");
        let backends = ["n1/a", "n2/a"].map(|name| {
            at(cluster.lab.place(name).unwrap().ip(Family::V4), kproxy_lab::POD_PORT).to_string()
        });
        assert!(backends.iter().any(|backend| event["backend"] == **backend), "{event}");
        assert!(event["pid"].is_null() || event["process"].is_string(), "{event}");

        // A port that the ClusterIP has not.
        assert!(dial(at(vip.ip(), PORT + 1)).all_refused());
        let event = tracer.wait("a refusal", |event| event["verdict"] == "refused");
        assert_eq!((&event["reason"], &event["service"]), (&json!("unknown-port"), &json!(null)));

        assert!(client.probe(Probe::tcp(at(node, NODE_PORT))).unwrap().all_answered());
        let event = tracer.wait("a packet", |event| event["hook"] == "ingress");
        assert_eq!(event["verdict"], "translated", "{event}");
        assert!(event["device"].is_string() && event["source_port"].is_u64(), "{event}");
        if is_alive {
            cluster.proxies[0].kill().unwrap();
        }
    }
    // Killed, it leaves nothing that the next one has to wait for; another Service is not told.
    drop(tracer);
    let drops = ["--drops", "--address", &vip.ip().to_string()];
    let tracer = Tracer::start(&cluster, &drops, || drop(dial(at(vip.ip(), PORT + 2))));
    assert!(dial(vip).all_answered());
    assert!(dial(at(vip.ip(), PORT + 1)).all_refused());
    let event = tracer.wait("the refusal", |event| {
        assert_eq!(event["verdict"], "refused", "{event}");
        event["frontend"] == at(vip.ip(), PORT + 1).to_string()
    });
    assert_eq!(event["reason"], "unknown-port");
    drop(tracer);
    let wrong = cluster.try_kproxy("n1", &["trace", "--service", "wbe", "--timeout", "1s"]);
    let stderr = String::from_utf8_lossy(&wrong.stderr);
    assert!(wrong.status.code() == Some(2) && stderr.contains("default/web"), "{stderr}");

    // The table of `top` is read from the same maps.
    let ask = Probe::new(Transport::UdpConnected, at(node, NODE_PORT));
    assert!(client.probe(ask).unwrap().all_answered());
    let table = cluster.kproxy("n1", &["top", "--once", "--interval", "1s", "--sort", "open"]);
    let is_web = |line: &&str| line.starts_with("default/web:udp") && line.contains("UDP/IPv4");
    let web = table.lines().find(is_web).unwrap();
    let open: u64 = web.split_whitespace().nth(4).unwrap().parse().unwrap();
    assert!(open >= 1, "{table}");
}

#[test]
fn connections_that_no_backend_takes_are_counted_as_failed() {
    let cluster = Cluster::new(&["n1/a"]);
    cluster.lab.place("n1/a").unwrap().stop_serving(kproxy_lab::POD_PORT).unwrap();
    let node = at(cluster.lab.node("n1").ip(Family::V4), NODE_PORT);
    let probe = Probe::tcp(node).count(3);
    assert!(cluster.lab.client().probe(probe).unwrap().all_refused());
    let counters = cluster.dump("n1", "counters");
    let web = counters.as_array().unwrap().iter().find(|row| {
        let service = &row["service"];
        service["name"] == "web" && service["protocol"] == "TCP" && service["family"] == "IPv4"
    });
    assert_eq!(web.unwrap()["failed"], 3, "{counters}");
}
