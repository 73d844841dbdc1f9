//! Sweeps and the map of network namespaces on the real kernel.

use kproxy_common::{
    flow::{FlowKey, FlowValue, flow_flags},
    net::{Addr, Port, proto},
};

use crate::{
    dataplane::{
        Fill,
        kernel::clock,
        read::FlowHalves,
        sandbox::{ip, plan, sandboxed, service},
    },
    plan::{Change, Protocol, SocketVerdict, SocketVerdicts},
};

#[test]
fn flows_are_read_and_swept() {
    sandboxed(|sandbox| {
        let mut dataplane = sandbox.open();
        let mut udp = plan("dns", "10.96.0.9", 30_053, &[53]);
        udp.id = service("dns", Protocol::Udp);
        dataplane.reconcile([udp.clone()]);
        let addr = |text: &str| Addr::from(ip(text));
        let seconds = clock::in_seconds(clock::now());
        let mut open = |client: u16| {
            let key = FlowKey {
                src: addr("203.0.113.9"),
                dst: addr("192.0.2.1"),
                src_port: Port::new(client),
                dst_port: Port::new(30_053),
                proto: proto::UDP,
                pad: [0; 3],
            };
            let forward = FlowValue {
                to: FlowKey { dst: addr("127.0.0.1"), dst_port: Port::new(53), ..key },
                last_seen: seconds,
                ..FlowValue::default()
            };
            let reverse = FlowValue {
                to: key.reversed(),
                flags: flow_flags::REVERSE,
                last_seen: seconds,
                ..FlowValue::default()
            };
            dataplane.flow_table.flows().insert(key, forward, 0).unwrap();
            dataplane.flow_table.flows().insert(forward.to.reversed(), reverse, 0).unwrap();
        };
        (1..=20).for_each(&mut open);
        let rows = sandbox.pins().flows().unwrap();
        assert_eq!(rows.len(), 20);
        assert!(rows.iter().all(|row| row.service.as_ref().is_some_and(|id| id.name == "dns")));
        let report = dataplane.sweep().unwrap();
        assert_eq!((report.entries, report.removed), (40, 0));
        assert_eq!(dataplane.usage().flows, Fill { used: 40, capacity: 128 });
        // CT-07: also when no backend is left.
        udp.cluster.backends.clear();
        dataplane.apply(vec![Change::Set(udp)]);
        // The ways back stay a while, for answers under way.
        assert_eq!(dataplane.sweep().unwrap().removed, 20);
        let rows = sandbox.pins().flows().unwrap();
        assert!(rows.len() == 20 && rows.iter().all(|row| row.halves == FlowHalves::ReverseOnly));
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
