//! Names of service ports.

use kproxy_common::service::{NAME_LEN, Name};

use crate::plan::{Family, Protocol, ServicePortId};

/// Name of a service port; `None` when it does not fit (no valid Kubernetes name is that long).
pub(crate) fn encode_name(id: &ServicePortId) -> Option<Name> {
    let text = id.text();
    let mut name = Name {
        text: [0; NAME_LEN],
        proto: id.protocol.number(),
        family: id.family.number(),
        pad: [0; 2],
    };
    name.text.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
    (decode_name(&name).as_ref() == Some(id)).then_some(name)
}

/// Reads a name; `None` for one that kproxy never writes.
pub(crate) fn decode_name(name: &Name) -> Option<ServicePortId> {
    let end = name.text.iter().position(|byte| *byte == 0).unwrap_or(NAME_LEN);
    let text = std::str::from_utf8(&name.text[..end]).ok()?;
    let (namespace, rest) = text.split_once('/')?;
    let (service, port) = rest.split_once(':').unwrap_or((rest, ""));
    Some(ServicePortId {
        namespace: namespace.to_owned(),
        name: service.to_owned(),
        port: port.to_owned(),
        protocol: Protocol::from_number(name.proto)?,
        family: match name.family {
            4 => Family::V4,
            6 => Family::V6,
            _ => return None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_round_trip_and_unfit_ones_are_refused() {
        let id = |namespace: &str, name: &str, port: &str| ServicePortId {
            namespace: namespace.into(),
            name: name.into(),
            port: port.into(),
            protocol: Protocol::Udp,
            family: Family::V6,
        };
        let label = "a".repeat(63);
        for id in
            [id("default", "web", ""), id("kube-system", "dns", "dns"), id(&label, &label, &label)]
        {
            assert_eq!(decode_name(&encode_name(&id).unwrap()), Some(id));
        }
        assert!(encode_name(&id(&label, &label, &"b".repeat(66))).is_none());
        assert!(encode_name(&id("a/b", "web", "")).is_none());
        assert!(
            decode_name(&Name { text: [0; NAME_LEN], proto: 6, family: 4, pad: [0; 2] }).is_none()
        );
    }
}
