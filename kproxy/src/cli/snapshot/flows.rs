//! Flows: the two entries of a connection become one row.

use std::collections::HashMap;

use kproxy_common::flow::{FlowKey, FlowState, FlowValue, flow_flags};
use kproxy_common::service::service_port_id;

use super::{Snapshot, protocol, scope};
use crate::cli::rows::Endpoint;
use crate::cli::rows::flow::Flow;

impl Snapshot {
    /// Connections, the most recently used first.
    pub fn flows(&self) -> Vec<Flow> {
        let is_reverse = |value: &FlowValue| value.flags & flow_flags::REVERSE != 0;
        let mut reverse: HashMap<&FlowKey, &FlowValue> =
            self.flows.iter().filter(|(_, v)| is_reverse(v)).map(|(key, v)| (key, v)).collect();
        let mut rows = Vec::with_capacity(reverse.len());
        for (key, value) in self.flows.iter().filter(|(_, value)| !is_reverse(value)) {
            let back = reverse.remove(&key.reverse_for(value.addr, value.port));
            rows.push(self.flow(key, Some(value), back));
        }
        // What is left answers for connections whose way there is gone: the program or the sweeper
        // is about to remove it, or something is wrong. Shown, so that nothing hides.
        for (key, value) in reverse {
            let forward = FlowKey {
                src: key.dst,
                src_port: key.dst_port,
                dst: value.addr,
                dst_port: value.port,
                ..*key
            };
            let mut row = self.flow(&forward, None, Some(value));
            row.backend = Endpoint { address: key.src.into(), port: key.src_port.get() };
            rows.push(row);
        }
        rows.sort_by(|a, b| {
            let key = |row: &Flow| (row.idle_seconds, row.client, row.frontend, row.backend);
            key(a).cmp(&key(b)).then_with(|| a.service.cmp(&b.service))
        });
        rows
    }

    fn flow(
        &self,
        key: &FlowKey,
        forward: Option<&FlowValue>,
        reverse: Option<&FlowValue>,
    ) -> Flow {
        let missing = FlowValue::default();
        let (there, back) = (forward.unwrap_or(&missing), reverse.unwrap_or(&missing));
        let index = forward.or(reverse).map_or(0, |value| value.service);
        let state = FlowState::of(there, back);
        let idle = self.now.saturating_sub(there.last_seen.max(back.last_seen));
        let mut service = self.service_port(service_port_id(index));
        service.protocol = protocol(key.proto);
        Flow {
            service,
            client: Endpoint { address: key.src.into(), port: key.src_port.get() },
            frontend: Endpoint { address: key.dst.into(), port: key.dst_port.get() },
            backend: Endpoint { address: there.addr.into(), port: there.port.get() },
            state: state.name(),
            idle_seconds: idle,
            expires_in_seconds: state.timeout(key.proto).saturating_sub(idle),
            masqueraded: there.flags & flow_flags::MASQUERADE != 0,
            set: scope(index),
            entries: match (forward, reverse) {
                (Some(_), Some(_)) => "both",
                (Some(_), None) => "forward",
                (None, _) => "reverse",
            },
        }
    }
}
