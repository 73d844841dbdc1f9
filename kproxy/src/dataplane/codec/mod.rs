//! Between the plan's words and the layouts of the maps. The only decoder and encoder of each.

mod frontends;
#[cfg(test)]
mod fuzz;
mod names;
mod netns;
mod ranges;
mod sets;

#[cfg(test)]
pub(super) use self::sets::encode_slot;
pub(super) use self::{
    frontends::{encode_frontends, kinds_of, sources_of},
    names::{decode_name, encode_name},
    netns::{decode_socket_verdicts, encode_socket_verdict},
    ranges::{decode_range, encode_range, encode_service_ranges},
    sets::{
        add_table, decode_algorithm, decode_slot, decode_verdict, encode_flags, encode_run,
        encode_serving, encode_verdict, index_of, inner_slot, run_len, scope_of, wants_table,
        without_table, word_of,
    },
};
