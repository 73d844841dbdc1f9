//! kproxy's own nftables table: masquerades what the packet path has marked, where the programs
//! cannot change the source themselves. On most nodes there is none.
//!
//! The rules are written with the `nft` command, as kube-proxy does: it is the one stable interface
//! of nftables, and the table is written once a start, never for a Service. Written again it is when
//! another program has changed it ([`repair`]): `nft flush ruleset` takes the tables of all.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use kproxy_common::abi::MARK_MASQUERADE;

use crate::model::Problem;

const TABLE: &str = "inet kproxy";

/// Why the table could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no `nft`.
    #[error("run nft: {0}; install the package nftables")]
    NoNft(#[source] std::io::Error),
    /// `nft` refused.
    #[error("{action}: nft says: {message}")]
    Refused {
        /// What was tried.
        action: String,
        /// What nft printed.
        message: String,
    },
}

impl Error {
    /// The error as a problem that does not stop the rest.
    pub fn to_problem(&self) -> Problem {
        let (what, remedy) = match self {
            Self::NoNft(error) => (format!("run nft: {error}"), "install the package nftables"),
            Self::Refused { action, message } => (
                format!("{action}: nft says: {message}"),
                "check that the kernel has nf_tables with NAT (modprobe nft_chain_nat nft_masq \
                 nft_fib_inet) and that kproxy has CAP_NET_ADMIN",
            ),
        };
        Problem::new(
            format!("nftables table {TABLE}"),
            what,
            format!(
                "{remedy}; until then traffic from outside to backends on other nodes stays \
                 without answer"
            ),
        )
    }
}

/// The rules.
///
/// - The mark is cleared before the masquerade (MSQ-07), and packets with a source address of this
///   node are left alone: on an overlay the outer packet inherits the mark, and masquerading it
///   costs retransmissions of a minute (kubernetes/kubernetes#88986).
/// - The port is drawn at random from above the default NodePort range, so that the answer to a UDP
///   datagram never looks like a request to a NodePort.
fn rules() -> String {
    format!(
        "table {TABLE} {{}}
delete table {TABLE}
table {TABLE} {{
  comment \"kproxy: what the packet path has marked; see docs/decisions/0010\"
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    meta mark & {masquerade:#x} == {masquerade:#x} meta l4proto {{ tcp, udp }} \
fib saddr type != local meta mark set meta mark & {keep:#x} \
counter masquerade to :32768-65535 fully-random
  }}
}}
",
        masquerade = MARK_MASQUERADE,
        keep = !MARK_MASQUERADE,
    )
}

/// Writes the table in one transaction, whatever was there before.
pub fn ensure() -> Result<(), Error> {
    run(format!("write nftables table {TABLE}"), &rules())
}

/// What [`repair`] found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Repair {
    /// The table is as it was written.
    Intact,
    /// It was missing or changed, and has been written again. Holds what it looks like now.
    Written(String),
    /// It was there and has been removed ([`remove_if_present`]).
    Removed,
}

/// Writes the table unless it looks as it did when it was `written` ([`Repair::Written`]).
///
/// # Errors
/// nft is missing or refuses.
pub fn repair(written: Option<&str>) -> Result<Repair, Error> {
    if written.is_some() && list()?.as_deref() == written {
        return Ok(Repair::Intact);
    }
    ensure()?;
    Ok(Repair::Written(list()?.unwrap_or_default()))
}

/// The table as nft prints it, without counters; `None`: it is not there.
fn list() -> Result<Option<String>, Error> {
    if !is_present()? {
        return Ok(None);
    }
    list_table(TABLE).map(Some)
}

/// A table (`FAMILY NAME`) as nft prints it, without counters.
pub(super) fn list_table(table: &str) -> Result<String, Error> {
    let mut arguments = vec!["--stateless", "list", "table"];
    arguments.extend(table.split(' '));
    query(&arguments)
}

/// Removes the table. Not being there is success.
pub fn remove() -> Result<(), Error> {
    delete(TABLE)
}

/// Removes a table (`FAMILY NAME`) with all that is in it. Not being there is success.
pub(super) fn delete(table: &str) -> Result<(), Error> {
    run(
        format!("remove nftables table {table}"),
        &format!("table {table} {{}}\ndelete table {table}\n"),
    )
}

/// Removes the table if it is there. Without `nft` there is none.
///
/// # Errors
/// nft refuses.
pub fn remove_if_present() -> Result<Repair, Error> {
    match is_present() {
        Ok(true) => remove().map(|()| Repair::Removed),
        Ok(false) | Err(Error::NoNft(_)) => Ok(Repair::Intact),
        Err(error) => Err(error),
    }
}

/// Whether the table is there.
pub fn is_present() -> Result<bool, Error> {
    Ok(is_listed(&list_tables()?, TABLE))
}

/// Every table, a line each, as nft prints them.
pub(crate) fn list_tables() -> Result<String, Error> {
    query(&["list", "tables"])
}

/// Every chain without its rules, as nft prints them.
pub(super) fn list_chains() -> Result<String, Error> {
    query(&["list", "chains"])
}

/// Whether a table is among those that are listed.
pub(super) fn is_listed(tables: &str, table: &str) -> bool {
    tables.lines().any(|line| line.trim().strip_prefix("table ") == Some(table))
}

fn query(arguments: &[&str]) -> Result<String, Error> {
    let output =
        Command::new("nft").args(arguments).stdin(Stdio::null()).output().map_err(Error::NoNft)?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::Refused { action: "read nftables".to_owned(), message });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn run(action: String, input: &str) -> Result<(), Error> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
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
    }
}
