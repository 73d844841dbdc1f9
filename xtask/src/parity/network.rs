//! What cannot be seen on every network.

use kproxy_lab::Network;

/// Ids that a network cannot show, and why.
const LEFT_OUT: [(Network, &str, &str); 3] = [
    (
        Network::Vxlan,
        "MSQ-03",
        "clients outside are answered through either proxy, as flanneld masquerades them",
    ),
    (Network::Routed, "AFF-06", "its other address of the node is that of the pods' bridge"),
    (Network::Routed, "MSQ-10", "one of its detectors goes by the pods' bridge"),
];

/// Why an id is not judged on this network.
pub(super) fn left_out(network: Network, id: &str) -> Option<&'static str> {
    let is_it = |(on, of, _): &&(Network, &str, &str)| *on == network && *of == id;
    LEFT_OUT.iter().find(is_it).map(|(_, _, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_out_on_the_bridge_and_what_is_exists() {
        let ids = crate::parity::ids::read().unwrap();
        for (network, id, _) in LEFT_OUT {
            assert_ne!(network, Network::Bridge);
            assert!(ids.iter().any(|known| known.id == id), "{id}");
            assert!(left_out(network, id).is_some() && left_out(Network::Bridge, id).is_none());
        }
    }
}
