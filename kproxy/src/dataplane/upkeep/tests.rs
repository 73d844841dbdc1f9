//! Sweeps and the map of network namespaces on the real kernel.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use kproxy_common::{
    abi::map,
    config::Uplink,
    filter::{FRESH, flow_position},
    flow::{FlowKey, FlowValue, flow_flags, flow_state},
    net::proto,
};

use super::sweeper::FlowSweeper;
use crate::{
    dataplane::{
        Dataplane, Fill,
        connections::{Entry, LONE, tests::flow},
        kernel::{clock, memory::Memory},
        maps::Flows,
        read::FlowHalves,
        sandbox::{Sandbox, ip, plan, sandboxed, service},
    },
    plan::{Change, Protocol, SocketVerdict, SocketVerdicts},
};

/// Sweeps as the daemon does.
fn sweep(dataplane: &mut Dataplane, flows: &mut FlowSweeper) -> (usize, usize) {
    let counts = dataplane.counts_connections();
    let report = flows.sweep(&dataplane.config(), counts, |given| dataplane.has_left(given));
    let report = report.unwrap();
    dataplane.swept(report);
    (report.entries, report.removed)
}

fn open(sandbox: &Sandbox) -> (Dataplane, FlowSweeper) {
    let mut dataplane = sandbox.open();
    let flows = dataplane.flow_sweeper().unwrap();
    (dataplane, flows)
}

/// Puts a connection of this client port in, with both entries or the one that is named, seen so
/// many seconds ago.
fn put(flows: &mut FlowSweeper, client: u16, (state, flags): (u8, u16), ago: u32) -> [Entry; 2] {
    let seen = clock::in_seconds(clock::now()) - ago;
    let proto = if state < flow_state::UNREPLIED { proto::TCP } else { proto::UDP };
    let entries = flow((proto, client), ("203.0.113.9", client), (state, flags), [seen; 2]);
    for (key, value) in entries {
        flows.flows().insert(key, value, 0).unwrap();
    }
    entries
}

#[test]
fn flows_are_read_and_the_old_ones_forgotten() {
    sandboxed(|sandbox| {
        let (mut dataplane, mut flows) = open(sandbox);
        let id = service("web", Protocol::Tcp);
        dataplane.reconcile([plan("web", "10.96.0.9", 30_080, &[8080])]);
        assert_eq!(sweep(&mut dataplane, &mut flows), (0, 0));
        (1..=20).for_each(|client| {
            put(&mut flows, client, (flow_state::OPENING, 0), 1);
        });
        let rows = sandbox.pins().flows().unwrap();
        assert_eq!(rows.len(), 20);
        // Of another service port: the first one is number 0.
        assert!(rows.iter().all(|row| row.id == Some(1) && row.service.as_ref() != Some(&id)));
        assert_eq!(sweep(&mut dataplane, &mut flows), (40, 0));
        assert_eq!(dataplane.usage().flows, Fill { used: 40, capacity: 128 });

        // Whole ones whose time is up, and halves.
        (21..=30).for_each(|client| {
            put(&mut flows, client, (flow_state::RESET, 0), 10);
        });
        let [_, back] = put(&mut flows, 31, (flow_state::ESTABLISHED, 0), LONE);
        flows.flows().remove(&back.0).unwrap();
        let [there, _] = put(&mut flows, 32, (flow_state::ESTABLISHED, 0), LONE - 3);
        flows.flows().remove(&there.0).unwrap();
        assert_eq!(sweep(&mut dataplane, &mut flows), (62, 21));
        let rows = sandbox.pins().flows().unwrap();
        assert_eq!(rows.len(), 21);
        assert_eq!(rows.iter().filter(|row| row.halves != FlowHalves::Both).count(), 1);
        assert_eq!(sweep(&mut dataplane, &mut flows), (41, 0));

        // Times are what the programs are told.
        dataplane.change_config(|config| config.timeouts[usize::from(flow_state::OPENING)] = 1);
        assert_eq!(sweep(&mut dataplane, &mut flows), (41, 40));
    });
}

#[test]
fn flow_09_a_flow_that_is_used_again_after_the_sweep_has_read_it_stays() {
    sandboxed(|sandbox| {
        let (mut dataplane, mut flows) = open(sandbox);
        dataplane.reconcile([plan("web", "10.96.0.9", 30_080, &[8080])]);
        // Of these the sweep asks, once it has read all.
        put(&mut flows, 1, (flow_state::REPLIED, 0), 0);
        let old = put(&mut flows, 2, (flow_state::RESET, 0), 10);
        let table = RefCell::new(dataplane.attachments.swept_maps().unwrap().flows);
        let used_again = |_given| {
            for (key, value) in old {
                let last_seen = clock::in_seconds(clock::now());
                let value = FlowValue { state: flow_state::ESTABLISHED, last_seen, ..value };
                table.borrow_mut().insert(key, value, 0).unwrap();
            }
            false
        };
        let config = dataplane.config();
        assert_eq!(flows.sweep(&config, false, used_again).unwrap().removed, 0);
        assert_eq!(sandbox.pins().flows().unwrap().len(), 2);
        put(&mut flows, 2, (flow_state::RESET, 0), 10);
        assert_eq!(flows.sweep(&config, false, |_| false).unwrap().removed, 2);
    });
}

#[test]
fn flows_whose_source_the_node_has_lost_end_once_there_is_another() {
    sandboxed(|sandbox| {
        let (mut dataplane, mut flows) = open(sandbox);
        let uplink = |v4: &str| Uplink { v4: ip(v4).into(), ..Uplink::default() };
        let clients = [(1, "192.0.2.1"), (2, "192.0.2.2"), (3, "192.0.2.1"), (4, "203.0.113.9")];
        for (client, source) in clients {
            // The last one keeps the client's own address.
            let flags = if client == 4 { 0 } else { flow_flags::SNAT | flow_flags::ASSURED };
            let state = (flow_state::ESTABLISHED, flags);
            let seen = [clock::in_seconds(clock::now()); 2];
            for (key, value) in flow((proto::TCP, client), (source, client), state, seen) {
                flows.flows().insert(key, value, 0).unwrap();
            }
        }
        dataplane
            .set_uplinks(&BTreeMap::from([(1, uplink("192.0.2.1")), (2, uplink("192.0.2.2"))]));
        assert_eq!(sweep(&mut dataplane, &mut flows), (8, 0));
        // Without another there is nothing better.
        dataplane.set_uplinks(&BTreeMap::new());
        assert_eq!(sweep(&mut dataplane, &mut flows), (8, 0));
        dataplane.set_uplinks(&BTreeMap::from([(2, uplink("192.0.2.2"))]));
        assert_eq!(sweep(&mut dataplane, &mut flows), (8, 4));
        assert_eq!(sweep(&mut dataplane, &mut flows), (4, 0));
        // The node still has this one.
        let address = ["address", "add", "192.0.2.2/32", "dev", "lo"];
        assert!(Command::new("ip").args(address).status().unwrap().success());
        dataplane.set_uplinks(&BTreeMap::from([(2, uplink("192.0.2.3"))]));
        assert_eq!(sweep(&mut dataplane, &mut flows), (4, 0));
    });
}

#[test]
fn more_old_flows_than_one_query_holds_are_all_forgotten() {
    sandboxed(|sandbox| {
        let (mut dataplane, mut flows) = open(sandbox);
        // All that the table holds, in several queries.
        (1..=64).for_each(|client| {
            put(&mut flows, client, (flow_state::RESET, 0), 11);
        });
        assert_eq!(sweep(&mut dataplane, &mut flows), (128, 128));
        assert_eq!(sandbox.pins().flows().unwrap(), []);
    });
}

#[test]
fn ct_10_udp_flows_of_a_backend_that_has_gone_are_found_once_and_the_programs_end_them() {
    sandboxed(|sandbox| {
        let (mut dataplane, mut flows) = open(sandbox);
        let mut udp = plan("dns", "10.96.0.9", 30_053, &[8080]);
        udp.id = service("dns", Protocol::Udp);
        udp.cluster.backends[0].addr = ip("10.244.1.5");
        dataplane.reconcile([udp.clone()]);
        for client in 1..=3 {
            for (key, mut value) in put(&mut flows, client, (flow_state::REPLIED, 0), 0) {
                value.service = 0;
                flows.flows().insert(key, value, 0).unwrap();
            }
        }
        let left = |dataplane: &mut Dataplane, flows: &mut FlowSweeper| {
            let report = flows.sweep(&dataplane.config(), false, |given| dataplane.has_left(given));
            let report = report.unwrap();
            (report.left_v4, report.left_v6, report.removed)
        };
        assert_eq!(left(&mut dataplane, &mut flows), (0, 0, 0));
        udp.cluster.backends.clear();
        dataplane.apply(vec![Change::Set(udp)]);
        assert_eq!(left(&mut dataplane, &mut flows), (3, 0, 3), "the ways back stay");
        assert_eq!(left(&mut dataplane, &mut flows), (0, 0, 0));
    });
}

#[test]
fn the_number_of_assured_flows_is_put_right_when_it_is_wrong_twice() {
    sandboxed(|sandbox| {
        let (mut dataplane, mut flows) = open(sandbox);
        assert_eq!(dataplane.config().max_assured, 56);
        assert_eq!(dataplane.config().unassured, 32);
        let assured = (flow_state::ESTABLISHED, flow_flags::ASSURED);
        (1..=5).for_each(|client| {
            put(&mut flows, client, assured, 1);
        });
        let counted = |flows: &FlowSweeper| flows.assured();
        assert_eq!(counted(&flows), 0, "the programs have not seen them");
        sweep(&mut dataplane, &mut flows);
        assert_eq!(counted(&flows), 0);
        sweep(&mut dataplane, &mut flows);
        assert_eq!(counted(&flows), 5);
        // Those that the programs forget they count out themselves.
        dataplane.change_config(|config| config.timeouts[usize::from(assured.0)] = 10);
        put(&mut flows, 1, assured, 11);
        sweep(&mut dataplane, &mut flows);
        assert_eq!(counted(&flows), 4);
        let usage = sandbox.pins().usage().unwrap();
        let of =
            |name| usage.iter().find(|row| row.map == name).map(|row| (row.used, row.capacity));
        assert_eq!((of(map::ASSURED), of(map::FLOWS)), (Some((4, 56)), Some((8, 128))));
    });
}

/// What a test does in a program's place.
struct Opener {
    filter: Memory<u64>,
    table: Flows,
    seconds: u32,
}

impl Opener {
    /// Opened flows that live at a time.
    const LIVE: u32 = 20;

    fn key(number: u32) -> FlowKey {
        let dst = IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number));
        FlowKey { dst: dst.into(), proto: proto::TCP, ..FlowKey::default() }
    }

    fn is_in_filter(&self, number: u32) -> bool {
        let (element, byte) = flow_position(&Self::key(number).dst);
        self.filter.get(element).unwrap().to_ne_bytes()[byte] != 0
    }

    /// The address first, then the entry. One that has lived long enough ends.
    fn open(&mut self, number: u32) {
        let key = Self::key(number);
        let (element, byte) = flow_position(&key.dst);
        let mut set = [0; 8];
        set[byte] = FRESH;
        self.filter.change_bits(element, 0, u64::from_ne_bytes(set));
        let last_seen = self.seconds + 1_000;
        self.table.insert(key, FlowValue { last_seen, ..FlowValue::default() }, 0).unwrap();
        if let Some(old) = number.checked_sub(Self::LIVE).filter(|old| *old > 0) {
            self.table.remove(&Self::key(old)).unwrap();
        }
    }

    fn live(&self, last: u32) -> impl Iterator<Item = bool> {
        (last.saturating_sub(Self::LIVE) + 1..=last).map(|number| self.is_in_filter(number))
    }
}

#[test]
fn flows_opened_while_the_filter_is_rebuilt_stay_in_it() {
    sandboxed(|sandbox| {
        let (mut dataplane, mut flows) = open(sandbox);
        let maps = dataplane.attachments.swept_maps().unwrap();
        let seconds = clock::in_seconds(clock::now());
        let mut opener = Opener { filter: maps.flow_filter, table: maps.flows, seconds };
        let stop = AtomicBool::new(false);
        let last = thread::scope(|scope| {
            let opening = scope.spawn(|| {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    opener.open(number);
                    assert!(opener.live(number).all(|is_in| is_in), "{number}");
                    thread::sleep(Duration::from_micros(100));
                }
                number
            });
            (0..30).for_each(|_| {
                sweep(&mut dataplane, &mut flows);
            });
            stop.store(true, Ordering::Relaxed);
            opening.join().unwrap()
        });
        assert!(last > 1_000, "{last} flows while it was rebuilt");
        (0..12).for_each(|_| {
            sweep(&mut dataplane, &mut flows);
        });
        assert!(opener.live(last).all(|is_in| is_in));
        let left = (1..=last).filter(|number| opener.is_in_filter(*number)).count();
        assert!(left < 2 * Opener::LIVE as usize, "{left} of {last} are in it still");
    });
}

#[test]
fn verdicts_on_network_namespaces_are_exactly_those_that_were_set_last() {
    sandboxed(|sandbox| {
        let mut dataplane = sandbox.open();
        let (served, opted_out) = (SocketVerdict::Served, SocketVerdict::OptedOut);
        for wanted in [
            SocketVerdicts::from([
                (1, served),
                (2, opted_out),
                (u64::MAX, SocketVerdict::Undecided),
            ]),
            // One changes, one goes, one comes.
            SocketVerdicts::from([(1, opted_out), (2, opted_out), (3, served)]),
            SocketVerdicts::new(),
            SocketVerdicts::from([(7, served)]),
        ] {
            assert_eq!(dataplane.set_socket_verdicts(&wanted).problems, []);
            assert_eq!(dataplane.socket_verdicts(), wanted);
            assert_eq!(sandbox.pins().socket_verdicts().unwrap(), wanted);
        }
        drop(dataplane);
        let mut dataplane = sandbox.open();
        assert_eq!(dataplane.socket_verdicts(), SocketVerdicts::from([(7, served)]));
        // More than there is room for.
        let many = (0..20_000).map(|cookie| (cookie, served)).collect();
        let problems = dataplane.set_socket_verdicts(&many).problems;
        assert_eq!(problems.len(), 1);
        assert!(problems[0].object.contains("KP_NETNS"), "{problems:?}");
    });
}
