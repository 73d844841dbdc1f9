//! Connections that kube-proxy has opened and netfilter translates until they end.

use kproxy_common::{
    counters::NO_SERVICE,
    flow::{FlowValue, adopt::Adopted, flow_flags},
    net::proto,
    service::Word,
};

use super::{filter, table, unassured};
use crate::{
    kernel::ticks,
    service::{
        lookup::{self, Lookup},
        pick,
    },
};

/// Leaves a connection to netfilter, if it leads to a frontend; whether it is left.
///
/// Of TCP and SCTP only the port that the backend sees is taken, by the entry of the answers: requests that open
/// nothing pass anyway. It lasts as entries without their other half do, unless the daemon names it again. A UDP
/// request may always open, so it has both entries, as long as the backend serves.
#[inline(never)]
pub(crate) fn leave_to_netfilter(connection: &Adopted, now: u32) -> bool {
    let Adopted { key, answer, left, state, .. } = connection;
    // The daemon may hold the filter back until all is left that is to be.
    let found = lookup::frontend_past_filter(&key.dst, key.dst_port, key.proto);
    let Lookup::Frontend(frontend) = found else { return false };
    let mut value = FlowValue {
        to: key.reversed(),
        flags: flow_flags::REVERSE | flow_flags::UNTRANSLATED,
        service: NO_SERVICE,
        last_seen: now,
        state: *state,
        opened: ticks() as u16,
        ..FlowValue::default()
    };
    filter::note_flows_to(&answer.dst);
    if key.proto != proto::UDP {
        value.flags |= flow_flags::COLLIDES;
        return match table::any(answer) {
            None => table::insert(answer, &value).unwrap_or(false),
            Some(known) => {
                let is_left = known.flags == value.flags;
                if is_left {
                    known.last_seen = now;
                }
                is_left
            }
        };
    }
    let Some((service, generation)) = [frontend.external, frontend.internal]
        .into_iter()
        .find_map(|service| serves(service, connection))
    else {
        return false;
    };
    (value.service, value.generation, value.end) = (service, generation, now);
    // It is forgotten here when it is there.
    value.last_seen = now.wrapping_sub(table::timeout(*state).saturating_sub(*left));
    if let Some(known) = table::any(key) {
        if known.flags & flow_flags::UNTRANSLATED == 0 {
            return false;
        }
        if known.to.is_reverse_of(answer) {
            return true;
        }
        // Netfilter has opened it anew.
        table::forget(key, known);
    }
    if table::insert(answer, &value) != Ok(true) {
        return false;
    }
    filter::note_flows_to(&key.dst);
    (value.to, value.flags) = (answer.reversed(), flow_flags::UNTRANSLATED);
    value.slot = unassured::take();
    let is_left = table::insert(key, &value) == Ok(true);
    if is_left {
        unassured::set(value.slot, key);
    } else {
        table::remove(answer);
    }
    is_left
}

/// The service and the generation of its word, if the backend is of its set.
#[inline(never)]
fn serves(service: u32, connection: &Adopted) -> Option<(u32, u16)> {
    let word = pick::word(service)?;
    let backend = &connection.answer;
    pick::is_member(word, &backend.src, backend.src_port)
        .then(|| (service, Word::unpack(word).generation))
}
