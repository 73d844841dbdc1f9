//! Flows: the two entries of a connection become one row.

use std::net::SocketAddr;

use kproxy_common::{
    abi::map,
    config::Config,
    counters::NO_SERVICE,
    flow::{FlowKey, FlowState, FlowValue, flow_flags},
    service::service_port_id,
};

use super::{
    error::ReadError,
    pins::Pins,
    rows::{FlowHalves, FlowKind, FlowRow},
};
use crate::{
    dataplane::{
        codec,
        connections::{Connection, Entry, connections, port_pool},
        kernel::{clock, hash},
        report::PortPool,
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
        let now = clock::in_seconds(clock::now());
        let mut rows = rows(&self.flow_entries()?, &self.config(), now);
        for row in &mut rows {
            row.service = row.id.and_then(|id| names.get(&id)).cloned();
        }
        rows.sort_by(|a, b| {
            (&a.service, a.client, a.frontend).cmp(&(&b.service, b.client, b.frontend))
        });
        Ok(rows)
    }

    /// How many source ports are taken; `None`: the programs give none out.
    ///
    /// # Errors
    /// A map could not be read.
    pub(crate) fn port_pool(&self) -> Result<Option<PortPool>, ReadError> {
        let (entries, now) = (self.flow_entries()?, clock::in_seconds(clock::now()));
        Ok(port_pool(connections(&entries).iter(), &self.config(), now))
    }

    pub(super) fn flow_entries(&self) -> Result<Vec<Entry>, ReadError> {
        hash::read(&self.flows).map_err(ReadError::of_map(map::FLOWS))
    }
}

pub(super) fn rows(entries: &[Entry], config: &Config, now: u32) -> Vec<FlowRow> {
    connections(entries).iter().filter_map(|connection| row(connection, config, now)).collect()
}

fn row(connection: &Connection<'_>, config: &Config, now: u32) -> Option<FlowRow> {
    let (halves, (key, forward)) = match (connection.forward, connection.reverse) {
        (Some(forward), Some(_)) => (FlowHalves::Both, *forward),
        (Some(forward), None) => (FlowHalves::ForwardOnly, *forward),
        (None, Some(reverse)) => (FlowHalves::ReverseOnly, other_half(reverse)),
        (None, None) => return None,
    };
    let is_seen = connection.entries().any(|(_, value)| value.last_seen != 0);
    let idle = is_seen.then(|| connection.idle(now));
    let kind = match forward {
        _ if forward.flags & flow_flags::UNTRANSLATED != 0 => FlowKind::Untranslated,
        _ if forward.service == NO_SERVICE => FlowKind::Direct,
        _ => FlowKind::Service,
    };
    let service = (kind == FlowKind::Service).then_some(forward.service);
    Some(FlowRow {
        protocol: Protocol::from_number(key.proto),
        client: key.source(),
        frontend: key.destination(),
        backend: forward.to.destination(),
        state: FlowState::from_number(forward.state),
        assured: connection.has(flow_flags::ASSURED),
        source: source_of(&forward),
        halves,
        idle_seconds: idle,
        expires_in_seconds: connection.timeout(config).saturating_sub(idle.unwrap_or(0)),
        kind,
        set: service.map(codec::scope_of),
        id: service.map(service_port_id),
        service: None,
    })
}

/// The forward entry that a lone reverse one has had.
fn other_half((key, reverse): &Entry) -> (FlowKey, FlowValue) {
    let to = key.reversed();
    (
        reverse.to.reversed(),
        FlowValue { to, flags: reverse.flags & !flow_flags::REVERSE, ..*reverse },
    )
}

/// What the backend sees as its client, if it is not netfilter that chooses.
fn source_of(forward: &FlowValue) -> Option<SocketAddr> {
    let known = forward.flags & flow_flags::MASQUERADE == 0;
    known.then(|| forward.to.source())
}

#[cfg(test)]
mod tests {
    use kproxy_common::{flow::flow_state, net::proto};

    use super::*;
    use crate::dataplane::connections::{LONE, tests::flow};

    #[test]
    fn the_two_entries_of_a_connection_become_one_row() {
        let config = Config::default();
        for (source, flags, shown) in [
            (("203.0.113.9", 40_000), 0, Some("203.0.113.9:40000")),
            (("203.0.113.9", 40_000), flow_flags::MASQUERADE, None),
            (("192.0.2.1", 20_000), flow_flags::SNAT, Some("192.0.2.1:20000")),
        ] {
            let shown = shown.map(|text| text.parse().unwrap());
            let state = (flow_state::ESTABLISHED, flags | flow_flags::ASSURED);
            let entries = flow((proto::TCP, 40_000), source, state, [90, 95]);
            let rows_of = |entries: &[Entry]| rows(entries, &config, 100);
            let both = rows_of(&entries);
            let [row] = both.as_slice() else { panic!("{both:?}") };
            assert_eq!(row.client, "203.0.113.9:40000".parse().unwrap());
            assert_eq!(row.frontend, "192.0.2.1:30080".parse().unwrap());
            assert_eq!(row.backend, "10.244.1.5:8080".parse().unwrap());
            assert_eq!((row.source, row.assured), (shown, true));
            assert_eq!(row.state.map(FlowState::name), Some("established"));
            assert_eq!((row.idle_seconds, row.id, row.kind), (Some(5), Some(1), FlowKind::Service));
            assert_eq!((row.halves, row.expires_in_seconds), (FlowHalves::Both, 86_395));

            let lone = &rows_of(&entries[1..])[0];
            assert_eq!((lone.halves, lone.expires_in_seconds), (FlowHalves::ReverseOnly, LONE - 5));
            assert_eq!((lone.client, lone.backend, lone.source), (row.client, row.backend, shown));
            let lone = &rows_of(&entries[..1])[0];
            assert_eq!(
                (lone.halves, lone.expires_in_seconds),
                (FlowHalves::ForwardOnly, LONE - 10)
            );
        }
    }

    #[test]
    fn flows_of_no_service_have_no_number() {
        for (flags, kind) in
            [(0, FlowKind::Direct), (flow_flags::UNTRANSLATED, FlowKind::Untranslated)]
        {
            let state = (flow_state::UNREPLIED, flags);
            let mut entries = flow((proto::UDP, 40_000), ("203.0.113.9", 40_000), state, [90, 90]);
            entries.iter_mut().for_each(|(_, value)| value.service = NO_SERVICE);
            let row = &rows(&entries, &Config::default(), 100)[0];
            assert_eq!((row.kind, row.id, row.set), (kind, None, None));
        }
    }
}
