//! Whether the node forwards packets: those to and from pods pass through it.

use std::fs;

use crate::model::{Family, Problem};

/// What is wrong for a node that has pods, and addresses of these families. What cannot be read is no problem.
pub(crate) fn problems(families: impl IntoIterator<Item = Family>) -> Vec<Problem> {
    let is_off = |setting: &str| {
        let value = fs::read_to_string(format!("/proc/sys/{}", setting.replace('.', "/")));
        value.is_ok_and(|value| value.trim() == "0")
    };
    families.into_iter().map(setting).filter(|setting| is_off(setting)).map(problem).collect()
}

/// Chains of the hook for what is forwarded that drop what no rule of theirs accepts, among chains as `nft list chains`
/// prints them.
pub(crate) fn dropping_chains(chains: &str) -> Vec<String> {
    let (mut table, mut chain, mut found) = ("", "", Vec::new());
    for line in chains.lines().map(str::trim) {
        let name = line.trim_end_matches(['{', ' ']);
        if let Some(name) = name.strip_prefix("table ") {
            table = name;
        } else if let Some(name) = name.strip_prefix("chain ") {
            chain = name;
        } else if line.contains(" hook forward ") && line.contains("policy drop;") {
            found.push(format!("chain {chain} of table {table}"));
        }
    }
    found
}

fn setting(family: Family) -> &'static str {
    match family {
        Family::V4 => "net.ipv4.ip_forward",
        Family::V6 => "net.ipv6.conf.all.forwarding",
    }
}

fn problem(setting: &str) -> Problem {
    Problem::new(
        setting,
        "it is off: this node forwards nothing, so clients outside and other nodes reach no pod here, through \
         Services or without",
        format!("set it: `sysctl -w {setting}=1`, and see what has switched it off"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_that_drop_what_is_forwarded_are_named() {
        let chains = "table ip filter {
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
	}
	chain INPUT {
		type filter hook input priority filter; policy drop;
	}
}
table inet firewall {
	chain passing {
		type filter hook forward priority 10; policy accept;
	}
}
";
        assert_eq!(dropping_chains(chains), ["chain FORWARD of table ip filter"]);
        assert_eq!(dropping_chains(""), [""; 0]);
    }
}
