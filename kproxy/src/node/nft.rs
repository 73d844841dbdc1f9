//! kproxy's own nftables table, `inet kproxy`: what the kernel's stack does better than a BPF
//! program.
//!
//! * `masquerade`: connections whose backend is elsewhere carry the mark bit 0x4000 and get this
//!   node as source. The kernel gives out the ports, because it alone knows every other user of
//!   them. The bit is cleared first, so that it leaks to nobody (MSQ-06, MSQ-07). Packets with a
//!   source of this node are left alone.
//! * `reject_input`, `reject_forward`: packets with the mark bit 0x8000 are answered with an ICMP
//!   port unreachable, rate-limited by the kernel.
//!
//! Other tables are never looked at.

use std::{
    io::{self, Write as _},
    process::{Command, Output, Stdio},
};

use kproxy_common::abi::{MARK_MASQUERADE, MARK_REJECT};
use thiserror::Error;

/// Family and name of the table.
pub const TABLE: &str = "inet kproxy";

/// Comments of the rules, by which a table of this version is known. Raise the number with any
/// change of the rules.
const RULES: [&str; 3] =
    ["kproxy masquerade 1", "kproxy reject input 1", "kproxy reject forward 1"];

/// The table could not be read or changed.
#[derive(Debug, Error)]
pub enum Error {
    /// There is no `nft` command.
    #[error("the nft command was not found: install the package nftables")]
    NotInstalled,
    /// It could not be run.
    #[error("could not run nft: {0}")]
    Run(io::Error),
    /// It refused.
    #[error(
        "nft could not {what} table {TABLE}: {why}; kproxy needs CAP_NET_ADMIN and a kernel with \
         nf_tables, nft_masq, nft_fib_inet and nft_reject_inet"
    )]
    Refused {
        /// What was tried.
        what: &'static str,
        /// What nft wrote.
        why: String,
    },
}

/// Makes sure that the table is there with this version's rules. A right one is left alone (its
/// counters go on), any other is replaced in one step. Whether something was written.
///
/// # Errors
/// nft is missing or refused.
pub fn ensure() -> Result<bool, Error> {
    if check()? {
        return Ok(false);
    }
    run("make", &["-f", "-"], Some(&ruleset())).map(|_| true)
}

/// Whether the table holds this version's rules and no others.
///
/// # Errors
/// nft is missing or refused.
pub fn check() -> Result<bool, Error> {
    match run("list", &["--json", "list", "table", "inet", "kproxy"], None) {
        Ok(output) => Ok(is_ours(&output.stdout)),
        Err(Error::Refused { why, .. }) if is_missing(&why) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the table. Whether there was one.
///
/// # Errors
/// nft is missing or refused.
pub fn remove() -> Result<bool, Error> {
    match run("remove", &["delete", "table", "inet", "kproxy"], None) {
        Ok(_) => Ok(true),
        Err(Error::Refused { why, .. }) if is_missing(&why) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_missing(why: &str) -> bool {
    why.contains("No such file or directory")
}

/// The whole table, as nft reads it: an empty one, so that there is one to delete, then the rules.
fn ruleset() -> String {
    let [masquerade, input, forward] = RULES;
    let cleared = !MARK_MASQUERADE;
    let reject = |comment: &str| {
        format!(
            "meta mark & {MARK_REJECT:#x} == {MARK_REJECT:#x} counter \
             reject with icmpx type port-unreachable comment \"{comment}\""
        )
    };
    format!(
        "table {TABLE} {{}}\n\
         delete table {TABLE}\n\
         table {TABLE} {{\n\
           chain masquerade {{\n\
             type nat hook postrouting priority srcnat; policy accept;\n\
             meta mark & {MARK_MASQUERADE:#x} == {MARK_MASQUERADE:#x} fib saddr type != local \
               counter meta mark set meta mark & {cleared:#x} masquerade fully-random \
               comment \"{masquerade}\"\n\
           }}\n\
           chain reject_input {{\n\
             type filter hook input priority filter; policy accept;\n\
             {}\n\
           }}\n\
           chain reject_forward {{\n\
             type filter hook forward priority filter; policy accept;\n\
             {}\n\
           }}\n\
         }}\n",
        reject(input),
        reject(forward),
    )
}

/// Whether nft's JSON listing holds exactly [`RULES`].
fn is_ours(json: &[u8]) -> bool {
    let Ok(listing) = serde_json::from_slice::<serde_json::Value>(json) else { return false };
    let items = listing["nftables"].as_array().map_or(&[][..], Vec::as_slice);
    let comments: Vec<_> = items
        .iter()
        .filter_map(|item| item.get("rule"))
        .map(|rule| rule["comment"].as_str())
        .collect();
    comments.len() == RULES.len() && RULES.iter().all(|rule| comments.contains(&Some(rule)))
}

fn run(what: &'static str, args: &[&str], input: Option<&str>) -> Result<Output, Error> {
    let mut child = Command::new("nft")
        .args(args)
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::NotInstalled,
            _ => Error::Run(error),
        })?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(text.as_bytes()).map_err(Error::Run)?;
    }
    let output = child.wait_with_output().map_err(Error::Run)?;
    if output.status.success() {
        return Ok(output);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let why = text.split_whitespace().collect::<Vec<_>>().join(" ");
    Err(Error::Refused { what, why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_this_version_is_known_by_its_rules() {
        let listing = |comments: &[&str]| {
            let mut items = vec![serde_json::json!({"table": {"name": "kproxy"}})];
            let rule = |comment: &&str| serde_json::json!({"rule": {"comment": comment}});
            items.extend(comments.iter().map(rule));
            serde_json::json!({ "nftables": items }).to_string().into_bytes()
        };
        assert!(is_ours(&listing(&RULES)));
        assert!(!is_ours(&listing(&RULES[1..])));
        assert!(!is_ours(&listing(&[RULES[0], RULES[1], RULES[2], "mine"])));
        assert!(!is_ours(b"[]") && !is_ours(b"{}") && !is_ours(b"nonsense"));
    }

    #[test]
    fn the_rules_name_the_marks_of_the_contract() {
        let text = ruleset();
        assert!(text.contains("meta mark & 0x4000 == 0x4000 fib saddr type != local"), "{text}");
        assert!(text.contains("meta mark set meta mark & 0xffffbfff masquerade"), "{text}");
        assert!(text.contains("meta mark & 0x8000 == 0x8000"), "{text}");
    }
}
