//! What the writer could not do, in sentences.
//!
//! Texts hold no number that changes from one try to the next: a problem is known by its object
//! and text.

use std::net::IpAddr;

use kproxy_common::{abi::map, service::Word};

use super::maps::Refusal;
use crate::{dataplane::settings::capacity_option, model::Problem, plan::ServicePortId};

/// What happened and what to do when `map` refuses a change.
pub(super) fn explain(refusal: &Refusal, map: &str) -> (String, String) {
    match refusal {
        Refusal::Full => (format!("the map {map} is full"), grow(map)),
        Refusal::Failed(why) => (
            format!("the kernel refused to change the map {map} ({why})"),
            "look at the kernel log for memory shortage; kproxy tries again".to_owned(),
        ),
    }
}

/// How to get a larger map than the largest that is allowed.
fn grow(map: &str) -> String {
    match capacity_option(map) {
        Some("--max-ranges") => "remove source ranges, or stop kproxy, run `kproxy cleanup` and \
                                 start it with a larger --max-ranges"
            .to_owned(),
        option => format!(
            "remove Services, or restart kproxy with a larger {}",
            option.unwrap_or_default()
        ),
    }
}

/// A problem of one service port.
pub(super) fn of_port(id: &ServicePortId, what: &str, remedy: String) -> Problem {
    let port = if id.port.is_empty() { String::new() } else { format!("port {}, ", id.port) };
    let (protocol, family) = (id.protocol.name(), id.family.number());
    Problem::new(
        format!("Service {}/{}", id.namespace, id.name),
        format!("{port}{protocol} over IPv{family}: {what}"),
        remedy,
    )
}

/// A map has refused a change of this service port.
pub(super) fn refused(id: &ServicePortId, refusal: &Refusal, map: &str, effect: &str) -> Problem {
    let (why, remedy) = explain(refusal, map);
    of_port(id, &format!("{why}; {effect}"), remedy)
}

/// The map has refused the entry of an address: of this node, or the ClusterIP of `owner`.
pub(super) fn address(
    addr: IpAddr,
    node: bool,
    owner: Option<&ServicePortId>,
    refusal: &Refusal,
) -> Problem {
    let (why, remedy) = explain(refusal, map::FRONTENDS);
    if node {
        let what = format!("{why}; NodePorts do not answer on it");
        return Problem::new(format!("node address {addr}"), what, remedy);
    }
    let object = owner.map_or_else(
        || format!("address {addr}"),
        |owner| format!("Service {}/{}", owner.namespace, owner.name),
    );
    let what = format!("{why}; connections to unknown ports of {addr} are not refused");
    Problem::new(object, what, remedy)
}

/// No number is left for a new service port.
pub(super) fn no_id(id: &ServicePortId) -> Problem {
    refused(id, &Refusal::Full, map::SERVICES, "it is not served")
}

/// No contiguous run of slots is left.
pub(super) fn no_slots(id: &ServicePortId, backends: usize, is_new: bool) -> Problem {
    let effect = not_all_serve(is_new);
    let what = format!("no room for {backends} backends in the map {}; {effect}", map::SLOTS);
    of_port(id, &what, grow(map::SLOTS))
}

/// What becomes of a service port whose backends do not all fit.
const fn not_all_serve(is_new: bool) -> &'static str {
    if is_new {
        "it is not served"
    } else {
        "its earlier backends stay in use but for those that are gone, and the others wait"
    }
}

/// There is room for the backends and not for the lookup table of maglev.
pub(super) fn no_table(id: &ServicePortId) -> Problem {
    let what = format!(
        "no room for the table of the algorithm maglev in the map {}; its backends are picked by \
         round-robin",
        map::SLOTS
    );
    of_port(id, &what, grow(map::SLOTS))
}

/// More backends than one set can hold.
pub(super) fn too_many_backends(id: &ServicePortId, backends: usize, is_new: bool) -> Problem {
    let effect = not_all_serve(is_new);
    let most = Word::MAX_BACKENDS;
    let what = format!("{backends} backends, at most {most} fit into one set; {effect}");
    of_port(id, &what, "split the Service".to_owned())
}

/// The name does not fit or could not be read back.
pub(super) fn bad_name(id: &ServicePortId) -> Problem {
    of_port(
        id,
        "its name is longer than Kubernetes allows or holds `/` or `:`; it is not served",
        "rename the Service or its port".to_owned(),
    )
}

/// The frontend already leads to another service port.
pub(super) fn taken(id: &ServicePortId, frontend: &str, owner: &str) -> Problem {
    of_port(
        id,
        &format!("{frontend} already leads to Service {owner}; the earlier one keeps it"),
        "give one of the two another address or port".to_owned(),
    )
}
