//! Every network, by itself and with every feature, runs the whole table of behaviours in
//! [`cases::CASES`]. docs/networks.md says what each is like.

mod case;
mod cases;
mod large;
mod other;
mod policy;
mod ports;
mod stage;

use kproxy_lab::{Feature, Network};
use stage::{Row, With};

/// One test a row: a network with one thing besides. All of its behaviours run, and the failure
/// names those that do not hold.
macro_rules! rows {
    ($($name:ident: $network:ident $with:expr;)*) => {
        $(
            #[test]
            fn $name() {
                stage::play(&Row { network: Network::$network, with: $with });
            }
        )*

        /// What the tests above cover.
        const ROWS: &[Row] = &[$(Row { network: Network::$network, with: $with }),*];
    };
}

rows! {
    bridge_plain: Bridge With::Nothing;
    bridge_netfilter_snat: Bridge With::NetfilterSnat;
    bridge_rp_filter: Bridge With::Feature(Feature::RpFilter);
    bridge_forward_drop: Bridge With::Feature(Feature::ForwardDrop);
    bridge_second_uplink: Bridge With::Feature(Feature::SecondUplink);
    bridge_vlan_uplink: Bridge With::Feature(Feature::VlanUplink);
    bridge_small_mtu: Bridge With::Feature(Feature::SmallMtu);
    bridge_other_tcx: Bridge With::OtherTcx;
    flannel_plain: Vxlan With::Nothing;
    flannel_netfilter_snat: Vxlan With::NetfilterSnat;
    flannel_rp_filter: Vxlan With::Feature(Feature::RpFilter);
    flannel_forward_drop: Vxlan With::Feature(Feature::ForwardDrop);
    flannel_second_uplink: Vxlan With::Feature(Feature::SecondUplink);
    flannel_vlan_uplink: Vxlan With::Feature(Feature::VlanUplink);
    flannel_small_mtu: Vxlan With::Feature(Feature::SmallMtu);
    flannel_other_tcx: Vxlan With::OtherTcx;
    calico_plain: Routed With::Nothing;
    calico_netfilter_snat: Routed With::NetfilterSnat;
    calico_rp_filter: Routed With::Feature(Feature::RpFilter);
    calico_forward_drop: Routed With::Feature(Feature::ForwardDrop);
    calico_second_uplink: Routed With::Feature(Feature::SecondUplink);
    calico_vlan_uplink: Routed With::Feature(Feature::VlanUplink);
    calico_small_mtu: Routed With::Feature(Feature::SmallMtu);
    calico_other_tcx: Routed With::OtherTcx;
}

#[test]
fn every_network_has_a_row_with_everything() {
    for network in Network::ALL {
        let mut with = vec![With::Nothing, With::NetfilterSnat, With::OtherTcx];
        with.extend(Feature::ALL.map(With::Feature));
        for with in with {
            let row = Row { network, with };
            assert!(ROWS.contains(&row), "no test for {row}");
        }
    }
}
