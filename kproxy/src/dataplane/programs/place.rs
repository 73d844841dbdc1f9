//! Where device programs are attached, and which.

use std::collections::BTreeSet;

use aya::programs::TcAttachType;
use kproxy_common::abi::program;

use crate::node::Device;

/// Where a device leads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Side {
    /// To other nodes and to clients.
    Uplink,
    /// To a pod of this node.
    Pod,
    /// To this node itself: the loopback device.
    Node,
}

/// A device and where it leads.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Place {
    pub(crate) device: Device,
    pub(crate) side: Side,
}

/// What attaching a program came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Attached {
    /// It, or an earlier one in its place, was attached already.
    AsBefore,
    /// Nothing of ours was there.
    Anew,
}

impl Place {
    /// Whether both are the same place, whatever the device is called.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        (self.device.index, self.side) == (other.device.index, other.side)
    }

    /// Where this node's packets to itself pass.
    pub(crate) fn loopback() -> Self {
        Self { device: Device::loopback(), side: Side::Node }
    }
}

/// Places that programs are attached to.
#[derive(Clone, Copy)]
pub(in crate::dataplane) struct Places<'a> {
    pub(in crate::dataplane) wanted: &'a BTreeSet<Place>,
    /// Whether pod-facing ports translate answers.
    pub(in crate::dataplane) answers_pods: bool,
    /// Whether they did so when programs were last attached.
    pub(in crate::dataplane) answered_pods: bool,
}

impl Places<'_> {
    /// The programs of a place, the way back first: no connection is translated one way only.
    pub(in crate::dataplane) fn programs_of(
        self,
        Place { device, side }: &Place,
    ) -> impl Iterator<Item = (&'static str, TcAttachType)> + use<> {
        let (egress, ingress) = match (side, device.ethernet) {
            (Side::Pod, _) => (program::POD_EGRESS, Some(program::POD_INGRESS)),
            (Side::Uplink, true) => (program::EGRESS, Some(program::INGRESS)),
            (Side::Uplink, false) => (program::EGRESS_L3, Some(program::INGRESS_L3)),
            (Side::Node, _) => (program::NODE_EGRESS, None),
        };
        let egress = (*side != Side::Pod || self.answers_pods).then_some(egress);
        let egress = egress.map(|name| (name, TcAttachType::Egress));
        egress.into_iter().chain(ingress.map(|name| (name, TcAttachType::Ingress)))
    }
}
