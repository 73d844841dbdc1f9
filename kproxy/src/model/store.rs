//! The store of objects.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    Family, Node, Pod, PodName, Service, ServiceCidr, ServiceCidrName, ServiceName, Slice,
    SliceName,
};

/// Services whose plan may differ after a change.
pub(crate) type Touched = BTreeSet<ServiceName>;

/// Services, their EndpointSlices, ServiceCIDRs, the own Node, and Pods that are opted out.
///
/// Each change answers with the Services that it touches; a change that alters nothing that the
/// plan reads touches none (EPS-16). Slices may come before their Service (EPS-17).
#[derive(Debug, Default)]
pub(crate) struct Model {
    services: HashMap<ServiceName, Service>,
    slices: HashMap<ServiceName, BTreeMap<SliceName, Slice>>,
    /// The Service each slice is filed under: the label may move a slice to another one.
    owners: HashMap<SliceName, ServiceName>,
    service_cidrs: BTreeMap<ServiceCidrName, ServiceCidr>,
    pods: BTreeMap<PodName, Pod>,
    node: Node,
    triggers: BTreeMap<(ServiceName, Family), Vec<i64>>,
}

impl Model {
    /// An empty model.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a Service.
    pub(crate) fn apply_service(&mut self, service: Service) -> Touched {
        if self.services.get(&service.name) == Some(&service) {
            return Touched::new();
        }
        let name = service.name.clone();
        self.services.insert(name.clone(), service);
        Touched::from([name])
    }

    /// Forgets a Service; its slices are kept, for it may come back.
    pub(crate) fn delete_service(&mut self, name: &ServiceName) -> Touched {
        self.services.remove(name).into_iter().map(|service| service.name).collect()
    }

    /// Adds or replaces an EndpointSlice.
    pub(crate) fn apply_slice(&mut self, slice: Slice) -> Touched {
        let service = slice.service_name();
        let mut touched = match self.owners.get(&slice.name) {
            Some(owner) if *owner != service => self.delete_slice(&slice.name),
            _ => Touched::new(),
        };
        let slices = self.slices.entry(service.clone()).or_default();
        if slices.get(&slice.name) != Some(&slice) {
            self.owners.insert(slice.name.clone(), service.clone());
            if let Some(time) = slice.triggered {
                self.triggers.entry((service.clone(), slice.family)).or_default().push(time);
            }
            slices.insert(slice.name.clone(), slice);
            touched.insert(service);
        }
        touched
    }

    /// Forgets an EndpointSlice.
    pub(crate) fn delete_slice(&mut self, name: &SliceName) -> Touched {
        let Some(service) = self.owners.remove(name) else { return Touched::new() };
        if let Some(slices) = self.slices.get_mut(&service) {
            // What a slice that goes has told is not what it goes for (EPS-20).
            if let Some(slice) = slices.remove(name) {
                self.triggers.remove(&(service.clone(), slice.family));
            }
            if slices.is_empty() {
                self.slices.remove(&service);
            }
        }
        Touched::from([service])
    }

    /// When pods changed of which slices have told since the last call, in microseconds since 1970
    /// (EPS-20).
    pub(crate) fn take_triggers(&mut self) -> Vec<(Family, i64)> {
        let triggers = std::mem::take(&mut self.triggers).into_iter();
        triggers
            .flat_map(|((_, family), times)| times.into_iter().map(move |at| (family, at)))
            .collect()
    }

    /// Replaces all Services: those not listed are gone.
    pub(crate) fn reset_services(&mut self, services: Vec<Service>) -> Touched {
        let listed: BTreeSet<_> = services.iter().map(|service| service.name.clone()).collect();
        let gone: Vec<_> =
            self.services.keys().filter(|name| !listed.contains(name)).cloned().collect();
        let mut touched = Touched::new();
        for name in &gone {
            touched.extend(self.delete_service(name));
        }
        for service in services {
            touched.extend(self.apply_service(service));
        }
        touched
    }

    /// Replaces all EndpointSlices: those not listed are gone.
    pub(crate) fn reset_slices(&mut self, slices: Vec<Slice>) -> Touched {
        let listed: BTreeSet<_> = slices.iter().map(|slice| slice.name.clone()).collect();
        let gone: Vec<_> =
            self.owners.keys().filter(|name| !listed.contains(name)).cloned().collect();
        let mut touched = Touched::new();
        for name in &gone {
            touched.extend(self.delete_slice(name));
        }
        for slice in slices {
            touched.extend(self.apply_slice(slice));
        }
        touched
    }

    /// Sets the own Node. A new zone touches every Service (NODE-04), new addresses those whose source
    /// ranges may hold the node (LBR-03).
    pub(crate) fn set_node(&mut self, node: Node) -> Touched {
        let Node { zone, addresses, leaving: _ } = std::mem::replace(&mut self.node, node);
        if zone != self.node.zone {
            self.services.keys().cloned().collect()
        } else if addresses != self.node.addresses {
            self.services_with_ranges()
        } else {
            Touched::new()
        }
    }

    /// Adds or replaces a ServiceCIDR. No plan of a Service depends on them.
    pub(crate) fn apply_service_cidr(&mut self, service_cidr: ServiceCidr) {
        self.service_cidrs.insert(service_cidr.name.clone(), service_cidr);
    }

    /// Forgets a ServiceCIDR.
    pub(crate) fn delete_service_cidr(&mut self, name: &ServiceCidrName) {
        self.service_cidrs.remove(name);
    }

    /// Replaces all ServiceCIDRs.
    pub(crate) fn reset_service_cidrs(&mut self, service_cidrs: Vec<ServiceCidr>) {
        let named = service_cidrs.into_iter().map(|object| (object.name.clone(), object));
        self.service_cidrs = named.collect();
    }

    /// A ServiceCIDR.
    pub(crate) fn service_cidr(&self, name: &ServiceCidrName) -> Option<&ServiceCidr> {
        self.service_cidrs.get(name)
    }

    /// The ranges of all ServiceCIDRs, sorted, those within or beside each other joined.
    pub(crate) fn service_ranges(&self) -> Vec<IpNet> {
        let ranges = self.service_cidrs.values().flat_map(|object| object.ranges.iter().copied());
        IpNet::aggregate(&ranges.collect())
    }

    /// Adds or replaces a Pod. No plan of a Service depends on them.
    pub(crate) fn apply_pod(&mut self, pod: Pod) {
        self.pods.insert(pod.name.clone(), pod);
    }

    /// Forgets a Pod.
    pub(crate) fn delete_pod(&mut self, name: &PodName) {
        self.pods.remove(name);
    }

    /// Replaces all Pods.
    pub(crate) fn reset_pods(&mut self, pods: Vec<Pod>) {
        self.pods = pods.into_iter().map(|pod| (pod.name.clone(), pod)).collect();
    }

    /// A Pod.
    pub(crate) fn pod(&self, name: &PodName) -> Option<&Pod> {
        self.pods.get(name)
    }

    /// The addresses of each Pod of this node, and of those of which nobody has said where they are.
    pub(crate) fn pod_addresses(&self, node_name: &str) -> Vec<BTreeSet<IpAddr>> {
        let is_here = |pod: &&Pod| pod.node.as_deref().is_none_or(|node| node == node_name);
        self.pods.values().filter(is_here).map(|pod| pod.addresses.clone()).collect()
    }

    /// The own Node.
    pub(crate) const fn node(&self) -> &Node {
        &self.node
    }

    /// A Service.
    pub(crate) fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.services.get(name)
    }

    /// The slices of a Service, in the order of their names, so that plans do not depend on the
    /// order of events.
    pub(crate) fn slices(&self, service: &ServiceName) -> impl Iterator<Item = &Slice> + Clone {
        self.slices.get(service).into_iter().flat_map(BTreeMap::values)
    }

    /// An EndpointSlice.
    pub(crate) fn slice(&self, name: &SliceName) -> Option<&Slice> {
        self.slices.get(self.owners.get(name)?)?.get(name)
    }

    /// Services whose load-balancer addresses are open to some senders only.
    pub(crate) fn services_with_ranges(&self) -> Touched {
        let restricted = self.services.values().filter(|service| !service.source_ranges.is_empty());
        restricted.map(|service| service.name.clone()).collect()
    }

    /// Services that have one of `addresses` as a cluster IP.
    pub(crate) fn services_at(&self, addresses: &BTreeSet<IpAddr>) -> Touched {
        if addresses.is_empty() {
            return Touched::new();
        }
        self.services
            .values()
            .filter(|service| service.cluster_ips.iter().any(|ip| addresses.contains(ip)))
            .map(|service| service.name.clone())
            .collect()
    }
}
