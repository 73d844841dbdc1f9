//! Clients and servers that run in places of a lab: this test binary again, in another role. Only
//! a process in a node's cgroup is seen by kproxy's socket programs.

use std::env;
use std::process::{self, Command};

use kproxy_lab::Place;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{dns, http2};

/// Variable that holds the role.
const ROLE: &str = "KPROXY_LAB_ROLE";
/// What the line of a peer's report begins with.
const REPORT: &str = "report: ";

/// What a peer does.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Role {
    Http2Server { name: String, port: u16 },
    Http2Client { to: std::net::SocketAddr },
    Resolver(dns::Lookups),
}

/// A command that plays a role in a place.
pub(crate) fn command(place: &Place, role: &Role) -> Command {
    let mut command = place.command(env::current_exe().unwrap()).unwrap();
    command
        .args(["--ignored", "--exact", "peer::play", "--nocapture"])
        .env(ROLE, serde_json::to_string(role).unwrap());
    command
}

/// Tells the test something, on a line of its own.
pub(crate) fn say(line: &str) {
    println!("\n{line}");
}

/// Tells the test what came of it.
pub(crate) fn report(report: &impl Serialize) {
    say(&format!("{REPORT}{}", serde_json::to_string(report).unwrap()));
}

/// The report in what a peer has said.
pub(crate) fn reported<T: DeserializeOwned>(log: &str) -> T {
    let line = log.lines().rev().find_map(|line| line.strip_prefix(REPORT));
    let line = line.unwrap_or_else(|| panic!("no report in:\n{log}"));
    serde_json::from_str(line).unwrap()
}

#[test]
#[ignore = "no test: the others start it in places of their labs"]
fn play() {
    let role = env::var(ROLE).expect("the other tests start this one and tell its role");
    match serde_json::from_str(&role).unwrap() {
        Role::Http2Server { name, port } => http2::serve(name, port),
        Role::Http2Client { to } => http2::ask(to),
        Role::Resolver(lookups) => report(&lookups.run()),
    }
    process::exit(0);
}
