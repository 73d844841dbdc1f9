//! Which rows the conditions leave.

use super::{Format, TERMINAL, dump, sample, typed};
use crate::cli::args::DumpTable;

/// Numbers of the service ports whose rows are left.
fn left(table: DumpTable, conditions: &str) -> Vec<u64> {
    let text = dump(&sample::tables(), table, Format::Json, &TERMINAL, &typed(conditions));
    let rows: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let mut ids: Vec<_> = rows.iter().filter_map(|row| row["id"].as_u64()).collect();
    ids.dedup();
    ids
}

#[test]
fn names_select_service_ports() {
    use DumpTable::{Backends, Counters, Flows, Frontends, Services};
    for table in [Frontends, Services, Counters] {
        assert_eq!(left(table, "-n kube-system"), [3, 4]);
        assert_eq!(left(table, "--service web"), [1, 2]);
        assert_eq!(left(table, "--service default/web:http"), [1, 2]);
        assert_eq!(left(table, "--service shop/web").len(), 0);
        assert_eq!(left(table, "--port dns"), [3, 4]);
        assert_eq!(left(table, "-n default --port https"), [0]);
    }
    assert_eq!(left(Backends, "-n legacy").len(), 0);
    assert_eq!(left(Flows, "--service web"), [1, 2]);
}

#[test]
fn addresses_select_what_is_dialled_and_where_it_goes() {
    use DumpTable::{Backends, Counters, Flows, Frontends, Services};
    assert_eq!(left(Frontends, "--address 10.96.0.0/24"), [0, 3]);
    assert_eq!(left(Frontends, "--address 10.244.1.5").len(), 0);
    assert_eq!(left(Services, "--address 10.244.1.5"), [1]);
    assert_eq!(left(Counters, "--address fd00:10:96::a"), [4]);
    // The backends of a ClusterIP, and a backend itself.
    assert_eq!(left(Backends, "--address 10.96.0.10"), [3]);
    assert_eq!(left(Backends, "--address 10.244.2.2"), [3]);
    assert_eq!(left(Flows, "--address 198.51.100.0/24"), [1]);
}

#[test]
fn a_node_address_selects_the_node_ports_of_its_family() {
    assert_eq!(left(DumpTable::Frontends, "--address 192.0.2.11"), [1, 6]);
    assert_eq!(left(DumpTable::Frontends, "--address 2001:db8:2::11"), [2]);
    assert_eq!(left(DumpTable::Frontends, "--address 192.0.2.12").len(), 0);
}

#[test]
fn address_and_port_must_meet_in_one_endpoint() {
    assert_eq!(left(DumpTable::Frontends, "--port 443"), [0, 6]);
    assert_eq!(left(DumpTable::Services, "--address 10.96.34.7 --port 80"), [1]);
    assert_eq!(left(DumpTable::Services, "--address 10.96.34.7 --port 8080").len(), 0);
}

#[test]
fn conditions_on_services_hide_what_belongs_to_none() {
    let rows = |table, conditions| {
        let text = dump(&sample::tables(), table, Format::Json, &TERMINAL, &typed(conditions));
        serde_json::from_str::<Vec<serde_json::Value>>(&text).unwrap().len()
    };
    assert_eq!(rows(DumpTable::Counters, ""), 8);
    assert_eq!(rows(DumpTable::Counters, "-n legacy"), 1);
    assert_eq!(rows(DumpTable::Addresses, "--address 10.96.0.0/16"), 5);
    assert_eq!(rows(DumpTable::Addresses, "-n legacy"), 0);
}

#[test]
fn a_remembered_client_is_found_by_its_own_address_and_by_its_backend() {
    let count = |conditions| {
        let (table, tables) = (DumpTable::Affinity, sample::tables());
        let text = dump(&tables, table, Format::Json, &TERMINAL, &typed(conditions));
        serde_json::from_str::<Vec<serde_json::Value>>(&text).unwrap().len()
    };
    for (conditions, rows) in [
        ("", 3),
        ("-n shop", 3),
        ("-n legacy", 0),
        ("--address 203.0.113.0/24", 1),
        ("--address 10.244.2.15", 2),
        ("--address 10.244.2.15 --port 8443", 2),
        ("--address 203.0.113.9 --port 8443", 0),
    ] {
        assert_eq!(count(conditions), rows, "{conditions}");
    }
}
