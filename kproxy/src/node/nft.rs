//! kproxy's own nftables table: masquerade and reject what the packet path has marked.
//!
//! The rules are written with the `nft` command, as kube-proxy does: it is the one stable interface
//! of nftables, and the table is written once a start, never for a Service.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use kproxy_common::abi::{MARK_MASQUERADE, MARK_REJECT};

const TABLE: &str = "inet kproxy";

/// Why the table could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no `nft`.
    #[error("run nft: {0}; install the package nftables")]
    NoNft(#[source] std::io::Error),
    /// `nft` refused.
    #[error("{action} nftables table {TABLE}: nft says: {message}")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// What nft printed.
        message: String,
    },
}

/// The rules.
///
/// - The mark is cleared before the masquerade (MSQ-07), and packets with a source address of this
///   node are left alone: on an overlay the outer packet inherits the mark, and masquerading it
///   costs retransmissions of a minute (kubernetes/kubernetes#88986).
/// - The port is drawn at random from above the default NodePort range, so that the answer to a UDP
///   datagram never looks like a request to a NodePort.
/// - TCP is refused with a reset: ICMP errors to one client are limited to one a second after the
///   first six (icmp_ratelimit), and the seventh connection would time out.
fn rules() -> String {
    let (masquerade, reject) = (MARK_MASQUERADE, MARK_REJECT);
    format!(
        "table {TABLE} {{}}
delete table {TABLE}
table {TABLE} {{
  comment \"kproxy: what the packet path has marked; see docs/decisions/0004\"
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    meta mark & {masquerade:#x} == {masquerade:#x} meta l4proto {{ tcp, udp }} \
fib saddr type != local meta mark set meta mark & {keep:#x} \
counter masquerade to :32768-65535 fully-random
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    meta mark & {reject:#x} == {reject:#x} counter jump refuse
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    meta mark & {reject:#x} == {reject:#x} counter jump refuse
  }}
  chain refuse {{
    meta l4proto tcp reject with tcp reset
    reject with icmpx type port-unreachable
  }}
}}
",
        keep = !masquerade,
    )
}

/// Writes the table in one transaction, whatever was there before.
pub fn ensure() -> Result<(), Error> {
    run("write", &["-f", "-"], &rules())
}

/// Removes the table. Not being there is success.
pub fn remove() -> Result<(), Error> {
    run("remove", &["-f", "-"], &format!("table {TABLE} {{}}\ndelete table {TABLE}\n"))
}

/// Whether the table is there.
pub fn is_present() -> Result<bool, Error> {
    let output = Command::new("nft")
        .args(["list", "tables"])
        .stdin(Stdio::null())
        .output()
        .map_err(Error::NoNft)?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::Refused { action: "look for", message });
    }
    let want = format!("table {TABLE}");
    Ok(String::from_utf8_lossy(&output.stdout).lines().any(|line| line.trim() == want))
}

fn run(action: &'static str, args: &[&str], input: &str) -> Result<(), Error> {
    let mut child = Command::new("nft")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::NoNft)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A child that has ended early says why on stderr.
        let _ended_early = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(Error::NoNft)?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Refused { action, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// That nft takes the rules is seen in the lab; here only what they say is looked at.
    #[test]
    fn the_mark_is_cleared_and_local_sources_are_left_alone() {
        let rules = rules();
        assert!(rules.contains("fib saddr type != local meta mark set"));
        assert!(rules.contains("meta mark set meta mark & 0xffffbfff counter masquerade"));
        assert_eq!(rules.matches("jump refuse").count(), 2);
    }
}
