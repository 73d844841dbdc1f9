//! Any word on the command line is a value or refused, never a panic; what is shown of a value can
//! be typed again.

use std::fmt::Debug;
use std::str::FromStr;

use clap::Parser as _;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::args::Cli;
use super::super::values::{
    AddressFilter, ClusterRanges, DeviceGlob, MapSize, PortFilter, PortRange, ServiceFilter,
    Target, Who,
};
use crate::config;
use crate::config::flags::{FLAGS, Typed};

/// Pieces of good and bad values.
const PIECES: [&str; 30] = [
    "10.244.0.0",
    "/16",
    "/33",
    ",",
    " ",
    "fd00::",
    "/56",
    "primary",
    "-",
    "1024",
    "65535",
    "65536",
    "0",
    "Ki",
    "Mi",
    "*",
    "?",
    "eth0",
    "[",
    "]",
    ":",
    "/",
    "default",
    "web",
    "%",
    "\u{0}",
    "é",
    "::",
    "99999999999999999999",
    "\n",
];

fn any_word() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => vec(select(&PIECES[..]), 0..6).prop_map(|pieces| pieces.concat()),
        1 => any::<String>(),
    ]
}

/// The value, or a refusal that says something.
fn parse<T: FromStr<Err = String> + Debug>(text: &str) -> Option<T> {
    match text.parse() {
        Ok(value) => Some(value),
        Err(error) => {
            assert!(!error.is_empty(), "{text:?}");
            None
        }
    }
}

proptest! {
    #[test]
    fn any_word_is_a_value_or_refused(text in any_word()) {
        if let Some(ClusterRanges(ranges)) = parse(&text) {
            prop_assert!(ranges.v4.is_none_or(|v4| v4.trunc() == v4));
            prop_assert!(ranges.v6.is_none_or(|v6| v6.trunc() == v6));
        }
        parse::<ServiceFilter>(&text);
        parse::<Target>(&text);
        parse::<Who>(&text);
        parse::<AddressFilter>(&text);
        if let Some(glob) = parse::<DeviceGlob>(&text) {
            prop_assert_eq!(glob.as_str(), &text);
        }
        if let Some(PortRange(ports)) = parse(&text) {
            prop_assert!(*ports.start() >= 1024 && ports.start() <= ports.end());
        }
        if let Some(MapSize(size)) = parse(&text) {
            prop_assert!((2..=MapSize::MAX).contains(&size));
            prop_assert_eq!(MapSize(size).to_string().parse(), Ok(MapSize(size)));
        }
        if let Some(PortFilter::Number(number)) = parse(&text) {
            prop_assert!(number > 0);
        }
    }

    #[test]
    fn any_value_of_kube_proxys_flags_is_in_force_or_refused(
        flag in (0..FLAGS.len()).prop_map(|index| &FLAGS[index]),
        text in any_word(),
    ) {
        let values = vec![text.clone()];
        match config::resolve(None, &[Typed { flag, values }]) {
            Ok(in_force) => prop_assert!(in_force.sources.contains_key(flag.path)),
            Err(error) => prop_assert!(error.to_string().contains(flag.name), "{}", error),
        }
    }

    #[test]
    fn any_command_line_is_understood_or_refused(
        verb in select(&["run", "config", "dump", "status", "cleanup", "version", "dump flows", "explain", "help"][..]),
        option in select(&["--service", "--address", "--port", "--cluster-cidr", "--uplinks",
            "--max-slots", "--snat-ports", "-o", "--nodeport-addresses", "--vmodule", "-v", "--feature-gates", "--from"][..]),
        value in any_word(),
    ) {
        let line = std::iter::once("kproxy").chain(verb.split(' ')).chain([option, &value]);
        if let Err(error) = Cli::try_parse_from(line) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
