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
