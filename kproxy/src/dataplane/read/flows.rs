//! Flows: the two entries of a connection become one row.

use std::{collections::HashMap, io, net::SocketAddr};

use kproxy_common::{
    abi::map,
    flow::{FlowKey, FlowState, FlowValue, flow_flags},
    net::{Addr, Port},
    service::service_port_id,
};

use super::{FlowHalves, FlowRow, Pins, ReadError};
use crate::{
    dataplane::{codec, sys},
    plan::Protocol,
};

impl Pins {
    /// Flows, sorted by service name, client and frontend. Reads the clock for the idle times.
    ///
    /// # Errors
    /// A map could not be read.
    pub fn flows(&self) -> Result<Vec<FlowRow>, ReadError> {
        let names = self.names()?;
        let mut entries = HashMap::new();
        self.each_flow(|key, value| {
            entries.insert(*key, *value);
        })?;
        let now = monotonic_seconds().map_err(ReadError::of(map::FLOWS))?;
        let mut rows = pair(&entries, now);
        for row in &mut rows {
            row.service = names.get(&row.id).cloned();
        }
        rows.sort_by(|a, b| {
            (&a.service, a.client, a.frontend).cmp(&(&b.service, b.client, b.frontend))
        });
        Ok(rows)
    }

    pub(super) fn each_flow(
        &self,
        mut see: impl FnMut(&FlowKey, &FlowValue),
    ) -> Result<(), ReadError> {
        for (key, value) in sys::read_hash(&self.flows).map_err(ReadError::of(map::FLOWS))? {
            see(&key, &value);
        }
        Ok(())
    }
}

/// Key of the forward entry that a reverse entry belongs to.
pub(crate) const fn forward_for(reverse: &FlowKey, value: &FlowValue) -> FlowKey {
    FlowKey {
        src: reverse.dst,
        dst: value.addr,
        src_port: reverse.dst_port,
        dst_port: value.port,
        proto: reverse.proto,
        pad: [0; 3],
    }
}

/// CLOCK_MONOTONIC in seconds: the clock of [`FlowValue::last_seen`].
pub(crate) fn monotonic_seconds() -> io::Result<u32> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
    Ok(now.tv_sec() as u32)
}

fn pair(entries: &HashMap<FlowKey, FlowValue>, now: u32) -> Vec<FlowRow> {
    let mut rows = Vec::new();
    for (key, value) in entries {
        if value.flags & flow_flags::REVERSE == 0 {
            let reverse = entries
                .get(&key.reverse_for(value.addr, value.port))
                .filter(|reverse| reverse.flags & flow_flags::REVERSE != 0);
            rows.push(row(key, value, reverse, now));
        } else if entries
            .get(&forward_for(key, value))
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
        backend: socket(forward.addr, forward.port),
        state,
        masquerade: forward.flags & flow_flags::MASQUERADE != 0,
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
        addr: key.src,
        port: key.src_port,
        service: value.service,
        ..FlowValue::default()
    };
    let mut row = row(&forward_for(key, value), &forward, Some(value), now);
    row.halves = FlowHalves::ReverseOnly;
    row.expires_in_seconds = 0;
    row
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

    #[test]
    fn the_two_entries_of_a_connection_become_one_row() {
        let key = FlowKey {
            src: addr("203.0.113.9"),
            dst: addr("192.0.2.1"),
            src_port: Port::new(40_000),
            dst_port: Port::new(30_080),
            proto: proto::TCP,
            pad: [0; 3],
        };
        let backend = (addr("10.244.1.5"), Port::new(8080));
        let forward = FlowValue {
            addr: backend.0,
            port: backend.1,
            flags: flow_flags::MASQUERADE,
            service: 7,
            last_seen: 90,
            ..FlowValue::default()
        };
        let reverse = FlowValue {
            addr: key.dst,
            port: key.dst_port,
            flags: flow_flags::REVERSE | flow_flags::REPLIED,
            service: 7,
            last_seen: 95,
            ..FlowValue::default()
        };
        let reverse_key = key.reverse_for(backend.0, backend.1);
        assert_eq!(forward_for(&reverse_key, &reverse), key);

        let rows = pair(&HashMap::from([(key, forward), (reverse_key, reverse)]), 100);
        let [row] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!(row.client, "203.0.113.9:40000".parse().unwrap());
        assert_eq!(row.frontend, "192.0.2.1:30080".parse().unwrap());
        assert_eq!(row.backend, "10.244.1.5:8080".parse().unwrap());
        assert_eq!((row.state, row.halves), (FlowState::Established, FlowHalves::Both));
        assert_eq!((row.idle_seconds, row.id), (Some(5), 3));
        assert_eq!(row.expires_in_seconds, 86_395);

        let lone = pair(&HashMap::from([(reverse_key, reverse)]), 100);
        assert_eq!(lone[0].halves, FlowHalves::ReverseOnly);
        assert_eq!((lone[0].client, lone[0].backend), (row.client, row.backend));
        let lone = pair(&HashMap::from([(key, forward)]), 100);
        assert_eq!((lone[0].halves, lone[0].state), (FlowHalves::ForwardOnly, FlowState::Opening));
    }
}
