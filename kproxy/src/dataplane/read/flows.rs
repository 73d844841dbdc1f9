//! Flows: the two entries of a connection become one row.

use std::{collections::HashMap, net::SocketAddr};

use kproxy_common::{
    abi::map,
    flow::{FlowKey, FlowState, FlowValue, flow_flags},
    net::{Addr, Port},
    service::service_port_id,
};

use super::{
    error::ReadError,
    pins::Pins,
    rows::{FlowHalves, FlowRow},
};
use crate::{
    dataplane::{
        codec,
        kernel::{clock, hash},
    },
    plan::Protocol,
};

impl Pins {
    /// Flows, sorted by service name, client and frontend. Reads the clock for the idle times.
    ///
    /// # Errors
    /// A map could not be read.
    pub(crate) fn flows(&self) -> Result<Vec<FlowRow>, ReadError> {
        let names = self.names()?;
        let entries = self.flow_entries()?.into_iter().collect();
        let mut rows = pair(&entries, clock::in_seconds(clock::now()));
        for row in &mut rows {
            row.service = names.get(&row.id).cloned();
        }
        rows.sort_by(|a, b| {
            (&a.service, a.client, a.frontend).cmp(&(&b.service, b.client, b.frontend))
        });
        Ok(rows)
    }

    pub(super) fn flow_entries(&self) -> Result<Vec<(FlowKey, FlowValue)>, ReadError> {
        hash::read(&self.flows).map_err(ReadError::of_map(map::FLOWS))
    }
}

pub(super) fn pair(entries: &HashMap<FlowKey, FlowValue>, now: u32) -> Vec<FlowRow> {
    let mut rows = Vec::new();
    for (key, value) in entries {
        if value.flags & flow_flags::REVERSE == 0 {
            let reverse = entries
                .get(&value.to.reversed())
                .filter(|reverse| reverse.flags & flow_flags::REVERSE != 0);
            rows.push(row(key, value, reverse, now));
        } else if entries
            .get(&value.to.reversed())
            .is_none_or(|forward| forward.flags & flow_flags::REVERSE != 0)
        {
            rows.push(lone_reverse(key, value, now));
        }
    }
    rows
}

fn row(key: &FlowKey, forward: &FlowValue, reverse: Option<&FlowValue>, now: u32) -> FlowRow {
    let halves = if reverse.is_some() { FlowHalves::Both } else { FlowHalves::ForwardOnly };
    let nothing = FlowValue::default();
    let reverse = reverse.unwrap_or(&nothing);
    let state = FlowState::of(forward, reverse);
    let last = forward.last_seen.max(reverse.last_seen);
    let idle = (last != 0).then(|| now.saturating_sub(last));
    FlowRow {
        protocol: Protocol::from_number(key.proto),
        client: socket(key.src, key.src_port),
        frontend: socket(key.dst, key.dst_port),
        backend: socket(forward.to.dst, forward.to.dst_port),
        state,
        source: source_of(forward),
        halves,
        idle_seconds: idle,
        expires_in_seconds: state.timeout(key.proto).saturating_sub(idle.unwrap_or(0)),
        set: codec::scope_of(forward.service),
        id: service_port_id(forward.service),
        service: None,
    }
}

fn lone_reverse(key: &FlowKey, value: &FlowValue, now: u32) -> FlowRow {
    let forward = FlowValue {
        to: key.reversed(),
        flags: value.flags & flow_flags::SNAT,
        service: value.service,
        ..FlowValue::default()
    };
    let mut row = row(&value.to.reversed(), &forward, Some(value), now);
    row.halves = FlowHalves::ReverseOnly;
    row.expires_in_seconds = 0;
    row
}

/// What the backend sees as its client, if it is not netfilter that chooses.
fn source_of(forward: &FlowValue) -> Option<SocketAddr> {
    let known = forward.flags & flow_flags::MASQUERADE == 0;
    known.then(|| socket(forward.to.src, forward.to.src_port))
}

fn socket(addr: Addr, port: Port) -> SocketAddr {
    SocketAddr::new(addr.into(), port.get())
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use kproxy_common::net::proto;

    use super::*;

    fn addr(text: &str) -> Addr {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn key() -> FlowKey {
        FlowKey {
            src: addr("203.0.113.9"),
            dst: addr("192.0.2.1"),
            src_port: Port::new(40_000),
            dst_port: Port::new(30_080),
            proto: proto::TCP,
            pad: [0; 3],
        }
    }

    /// Both values of a connection whose backend sees this source.
    fn values(source: (&str, u16), flags: u16) -> (FlowValue, FlowValue) {
        let key = key();
        let forward = FlowValue {
            to: FlowKey {
                src: addr(source.0),
                src_port: Port::new(source.1),
                dst: addr("10.244.1.5"),
                dst_port: Port::new(8080),
                ..key
            },
            flags,
            service: 7,
            last_seen: 90,
            ..FlowValue::default()
        };
        let reverse = FlowValue {
            to: key.reversed(),
            flags: flow_flags::REVERSE | flow_flags::REPLIED | flags & flow_flags::SNAT,
            last_seen: 95,
            ..forward
        };
        (forward, reverse)
    }

    #[test]
    fn the_two_entries_of_a_connection_become_one_row() {
        for (source, flags, shown) in [
            (("203.0.113.9", 40_000), 0, Some("203.0.113.9:40000")),
            (("203.0.113.9", 40_000), flow_flags::MASQUERADE, None),
            (("192.0.2.1", 20_000), flow_flags::SNAT, Some("192.0.2.1:20000")),
        ] {
            let shown = shown.map(|text| text.parse().unwrap());
            let (forward, reverse) = values(source, flags);
            let reverse_key = forward.to.reversed();
            let rows = pair(&HashMap::from([(key(), forward), (reverse_key, reverse)]), 100);
            let [row] = rows.as_slice() else { panic!("{rows:?}") };
            assert_eq!(row.client, "203.0.113.9:40000".parse().unwrap());
            assert_eq!(row.frontend, "192.0.2.1:30080".parse().unwrap());
            assert_eq!(row.backend, "10.244.1.5:8080".parse().unwrap());
            assert_eq!((row.source, row.state), (shown, FlowState::Established));
            assert_eq!((row.idle_seconds, row.id), (Some(5), 3));
            assert_eq!((row.halves, row.expires_in_seconds), (FlowHalves::Both, 86_395));

            let lone = pair(&HashMap::from([(reverse_key, reverse)]), 100);
            assert_eq!(lone[0].halves, FlowHalves::ReverseOnly);
            assert_eq!((lone[0].client, lone[0].backend), (row.client, row.backend));
            let lone = pair(&HashMap::from([(key(), forward)]), 100);
            assert_eq!(lone[0].halves, FlowHalves::ForwardOnly);
            assert_eq!(lone[0].state, FlowState::Opening);
        }
    }
}
