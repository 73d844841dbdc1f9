//! Widths, formats and colours.

use std::net::{IpAddr, Ipv6Addr};

use proptest::prelude::*;

use super::{EACH, PLAIN, TERMINAL, dump, sample};
use crate::cli::args::{DumpTable, FilterArgs, Format};
use crate::cli::dump::tables::Tables;
use crate::cli::render::Look;
use crate::dataplane::read::AffinityClient;
use crate::plan::ServicePortId;

fn whole(table: DumpTable, format: Format, look: &Look) -> String {
    dump(&sample::tables(), table, format, look, &FilterArgs::default())
}

#[test]
fn dump_all_shows_every_table() {
    insta::assert_snapshot!("all_at_80", whole(DumpTable::All, Format::Table, &TERMINAL));
    insta::assert_snapshot!("all_wide", whole(DumpTable::All, Format::Wide, &TERMINAL));
    let json = whole(DumpTable::All, Format::Json, &TERMINAL);
    let object: serde_json::Value = serde_json::from_str(&json).unwrap();
    let keys: Vec<_> = object.as_object().unwrap().keys().map(String::as_str).collect();
    let mut names = EACH.map(DumpTable::name);
    names.sort_unstable();
    assert_eq!(keys, names);
}

#[test]
fn yaml_says_the_same_as_json() {
    insta::assert_snapshot!(
        "addresses_and_backends_yaml",
        whole(DumpTable::Backends, Format::Yaml, &TERMINAL)
    );
}

#[test]
fn a_pipe_gets_everything_in_full() {
    let mut tables = sample::tables();
    let long = "a-service-with-a-name-that-fills-the-sixty-three-bytes-of-a-dns";
    rename(&mut tables, |id| long.clone_into(&mut id.name));
    for table in EACH {
        let text = dump(&tables, table, Format::Table, &PLAIN, &FilterArgs::default());
        assert!(!text.contains('…'), "{text}");
        assert!(table == DumpTable::Addresses || text.contains(long), "{text}");
        assert!(!text.lines().any(|line| line.ends_with(' ')), "{text}");
        let wide = dump(&tables, table, Format::Wide, &TERMINAL, &FilterArgs::default());
        assert!(!wide.contains('…'), "{wide}");
    }
}

#[test]
fn colour_only_adds_escapes() {
    let color = Look { color: true, ..TERMINAL };
    for table in EACH {
        let painted = whole(table, Format::Table, &color);
        assert!(painted.contains('\u{1b}'));
        let plain = anstream::adapter::strip_str(&painted).to_string();
        assert_eq!(plain, whole(table, Format::Table, &TERMINAL));
        assert!(!whole(table, Format::Json, &color).contains('\u{1b}'));
    }
}

#[test]
fn empty_tables_are_empty_lists() {
    for table in EACH {
        let (none, all) = (Tables::default(), FilterArgs::default());
        assert_eq!(dump(&none, table, Format::Json, &TERMINAL, &all), "[]\n");
        assert_eq!(dump(&none, table, Format::Table, &TERMINAL, &all), "");
    }
}

/// Changes the name of every service port.
fn rename(tables: &mut Tables, change: impl Fn(&mut ServicePortId)) {
    let ids = (tables.frontends.iter_mut().map(|row| &mut row.service))
        .chain(tables.services.iter_mut().map(|row| &mut row.service))
        .chain(tables.backends.iter_mut().map(|row| &mut row.service))
        .chain(tables.flows.iter_mut().map(|row| &mut row.service))
        .chain(tables.affinity.iter_mut().map(|row| &mut row.service))
        .chain(tables.counters.iter_mut().map(|row| &mut row.service))
        .chain(tables.drops.iter_mut().map(|row| &mut row.service));
    ids.flatten().for_each(change);
}

/// Gives every row this address.
fn readdress(tables: &mut Tables, addr: IpAddr) {
    tables.frontends.iter_mut().for_each(|row| row.addr = addr);
    tables.backends.iter_mut().for_each(|row| row.addr = addr);
    tables.addresses.iter_mut().for_each(|row| row.addr = addr);
    for row in &mut tables.affinity {
        row.addr = addr;
        if let AffinityClient::Address(client) = &mut row.client {
            *client = addr;
        }
    }
    for row in &mut tables.flows {
        for end in [&mut row.client, &mut row.frontend, &mut row.backend] {
            end.set_ip(addr);
        }
    }
}

proptest! {
    #[test]
    fn nothing_is_wider_than_the_terminal(
        namespace in "[a-z][a-z0-9-]{0,62}",
        name in "[a-z][a-z0-9-]{0,62}",
        port in "[a-z0-9-]{0,15}",
        addr in any::<u128>(),
        width in 80usize..200,
    ) {
        let mut tables = sample::tables();
        rename(&mut tables, |id| {
            namespace.clone_into(&mut id.namespace);
            name.clone_into(&mut id.name);
            port.clone_into(&mut id.port);
        });
        readdress(&mut tables, Ipv6Addr::from(addr).into());
        let look = Look { width: Some(width), color: false };
        for table in EACH {
            let text = dump(&tables, table, Format::Table, &look, &FilterArgs::default());
            for line in text.lines() {
                prop_assert!(line.chars().count() <= width, "{}: {line}", line.chars().count());
            }
        }
    }

    /// The tables that people read most show usual names and addresses in full.
    #[test]
    fn usual_names_are_whole_at_80_columns(name in "[a-z][a-z0-9-]{25}") {
        let all = FilterArgs::default();
        for (table, length) in [(DumpTable::Frontends, 10), (DumpTable::Services, 26)] {
            let mut tables = sample::tables();
            rename(&mut tables, |id| {
                "default".clone_into(&mut id.namespace);
                name[..length].clone_into(&mut id.name);
            });
            let text = dump(&tables, table, Format::Table, &TERMINAL, &all);
            prop_assert!(!text.contains('…'), "{text}");
        }
    }
}
