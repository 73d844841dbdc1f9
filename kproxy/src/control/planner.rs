//! Events to changes, without any IO.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::dataplane::SERVICE_RANGES;
use crate::model::{Algorithm, Family, Model, Node, Problem, Service, ServiceName, Touched};
use crate::plan::{
    Change, Claims, HealthChecks, NodePortAddresses, PlanContext, ServicePortId, ServicePortPlan,
    check_service, health_check, plan_service,
};
use crate::source::{Event, Parsed, Update, Verdict};

use super::problems::{Origin, Problems};
use super::settings::Settings;
use super::stored::Stored;

/// The model, its plan, and which Services have to be planned again.
#[derive(Debug)]
pub(crate) struct Planner {
    node_name: String,
    local_addresses: BTreeSet<IpAddr>,
    model: Model,
    claims: Claims,
    health_checks: HealthChecks,
    node_port_addresses: NodePortAddresses,
    bind_address: Option<IpAddr>,
    external_ips: bool,
    algorithm: Algorithm,
    problems: Problems,
    dirty: Touched,
    lists: Lists,
    /// The own Node is there.
    has_node: bool,
    /// What has not been readable since the start.
    unread: BTreeSet<String>,
}

/// Which lists are complete.
#[derive(Debug, Default)]
struct Lists {
    services: bool,
    slices: bool,
    service_cidrs: bool,
    pods: bool,
    node: bool,
}

impl Planner {
    /// An empty planner for the node of this name.
    pub(crate) fn new(node_name: impl Into<String>) -> Self {
        Self {
            node_name: node_name.into(),
            local_addresses: BTreeSet::new(),
            model: Model::new(),
            claims: Claims::new(),
            health_checks: HealthChecks::new(),
            node_port_addresses: NodePortAddresses::default(),
            bind_address: None,
            external_ips: true,
            algorithm: Algorithm::default(),
            problems: Problems::default(),
            dirty: Touched::new(),
            lists: Lists::default(),
            has_node: false,
            unread: BTreeSet::new(),
        }
    }

    /// As the loop is run.
    pub(crate) fn of(settings: &Settings) -> Self {
        Self::new(settings.node_name.as_str())
            .with_node_port_addresses(settings.node_port_addresses.clone(), settings.bind_address)
            .with_external_ips(settings.serve_external_ips)
            .with_algorithm(settings.algorithm)
    }

    /// Lets NodePorts answer on these addresses only. `bind_address` is the node's primary address,
    /// whatever the Node object says (NODE-02).
    #[must_use]
    pub(crate) fn with_node_port_addresses(
        mut self,
        addresses: NodePortAddresses,
        bind_address: Option<IpAddr>,
    ) -> Self {
        self.node_port_addresses = addresses;
        self.bind_address = bind_address;
        self.set_node(Node::default());
        self
    }

    /// Serves externalIPs of Services, or takes no notice of them.
    #[must_use]
    pub(crate) const fn with_external_ips(mut self, served: bool) -> Self {
        self.external_ips = served;
        self
    }

    /// Picks backends in this way where a Service does not say.
    #[must_use]
    pub(crate) const fn with_algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// Takes an event.
    pub(crate) fn handle(&mut self, event: Event) {
        match event {
            Event::Services(mut update) => {
                self.lists.services |= matches!(update, Update::Reset(_));
                if !self.external_ips {
                    update.edit(|service| service.external_ips.clear());
                }
                self.store(update);
            }
            Event::Slices(update) => {
                self.lists.slices |= matches!(update, Update::Reset(_));
                self.store(update);
            }
            Event::ServiceCidrs(update) => {
                self.lists.service_cidrs |= matches!(update, Update::Reset(_));
                self.store(update);
                self.check_service_ranges();
            }
            Event::Pods(update) => {
                self.lists.pods |= matches!(update, Update::Reset(_));
                self.store(update);
            }
            Event::Node(node) => {
                self.lists.node = true;
                self.has_node = node.is_some();
                self.set_node(node.unwrap_or_default());
                let problem = self.node_port_addresses.problem(self.model.node());
                let origin = Origin::Whole("--nodeport-addresses");
                self.problems.set(origin, problem.into_iter().collect());
            }
            Event::Unread { origin, unread } => self.set_unread(origin, unread),
            Event::Problems { origin, problems } => {
                self.problems.set(Origin::Source(origin), problems);
            }
            // What was told stays in force all the same.
            Event::Stale(_) => {}
        }
    }

    /// Takes the addresses bound to this node's devices. Services whose cluster IP came or went
    /// among them are planned again, and those with source ranges, which may hold the node.
    pub(crate) fn set_local_addresses(&mut self, addresses: BTreeSet<IpAddr>) {
        let changed = addresses.symmetric_difference(&self.local_addresses).copied().collect();
        self.local_addresses = addresses;
        self.dirty.extend(self.model.services_at(&changed));
        if !changed.is_empty() {
            self.dirty.extend(self.model.services_with_ranges());
        }
    }

    /// Both lists that the data path needs are complete (LC-01).
    pub(crate) const fn is_complete(&self) -> bool {
        self.lists.services && self.lists.slices
    }

    /// The own Node was read, or is known not to exist. Without it the plan has no zone.
    pub(crate) const fn knows_node(&self) -> bool {
        self.lists.node
    }

    /// Whether the own Node is there to stay (HZ-06); `None`: there is no such Node.
    pub(crate) fn node_stays(&self) -> Option<bool> {
        self.has_node.then(|| !self.model.node().leaving)
    }

    /// Whether something has not been readable since the start: the plans may lack what a run
    /// before this one has served.
    pub(crate) fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    fn set_node(&mut self, mut node: Node) {
        if let Some(bind) = self.bind_address {
            node.addresses.retain(|ip| Family::of(ip) != Family::of(&bind));
            node.addresses.insert(0, bind);
        }
        let touched = self.model.set_node(node);
        self.dirty.extend(touched);
    }

    /// When pods changed of which slices have told since the last call (EPS-20).
    pub(crate) fn take_triggers(&mut self) -> Vec<(Family, i64)> {
        self.model.take_triggers()
    }

    fn set_unread(&mut self, origin: String, unread: bool) {
        if unread {
            self.unread.insert(origin);
        } else {
            self.unread.remove(&origin);
        }
    }

    /// Plans what was touched and answers what changes. Planning everything anew would give the
    /// same [`Self::plans`].
    pub(crate) fn take_changes(&mut self) -> Vec<Change> {
        let touched = std::mem::take(&mut self.dirty);
        let mut plans: Vec<(ServicePortId, Option<ServicePortPlan>)> = Vec::new();
        for name in &touched {
            let planned = self.plan(name);
            let gone = self
                .claims
                .ids_of(name)
                .filter(|id| planned.iter().all(|plan| plan.id != **id))
                .map(|id| (id.clone(), None));
            plans.extend(gone);
            plans.extend(planned.into_iter().map(|plan| (plan.id.clone(), Some(plan))));
        }
        let settled = self.claims.update(plans);
        for id in settled.disputed {
            let problems = self.claims.problems(&id);
            self.problems.set(Origin::Claim(id), problems);
        }
        settled.changes
    }

    /// Everything as it should be in the data path now.
    pub(crate) fn plans(&self) -> Vec<ServicePortPlan> {
        self.claims.plans()
    }

    /// A Service, as it was last told.
    pub(crate) fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.model.service(name)
    }

    /// The addresses on which NodePorts answer.
    pub(crate) fn node_port_addresses(&self) -> BTreeSet<IpAddr> {
        self.node_port_addresses.choose(&self.local_addresses, self.model.node())
    }

    /// The addresses to listen on for health checks: as for NodePorts, and the unspecified address
    /// where that is every address of a family (HCN-01).
    pub(crate) fn listen_addresses(&self) -> BTreeSet<IpAddr> {
        let mut addresses = self.node_port_addresses();
        for family in [Family::V4, Family::V6] {
            if self.node_port_addresses.takes_all(family) {
                addresses.retain(|ip| Family::of(ip) != family);
                addresses.insert(family.unspecified());
            }
        }
        addresses
    }

    /// Services that load balancers ask this node about, as last planned.
    pub(crate) const fn health_checks(&self) -> &HealthChecks {
        &self.health_checks
    }

    /// The ranges that ClusterIPs come from; `None` while nobody has told.
    pub(crate) fn service_ranges(&self) -> Option<Vec<IpNet>> {
        self.lists.service_cidrs.then(|| self.model.service_ranges())
    }

    /// The addresses of each Pod of this node that is opted out by its namespace; `None` while nobody has
    /// told.
    pub(crate) fn opted_out_pods(&self) -> Option<Vec<BTreeSet<IpAddr>>> {
        self.lists.pods.then(|| self.model.pod_addresses(&self.node_name))
    }

    fn check_service_ranges(&mut self) {
        let ranges = self.model.service_ranges();
        let problems = [Family::V4, Family::V6].into_iter().filter_map(|family| {
            let count = ranges.iter().filter(|range| Family::of(&range.addr()) == family).count();
            let (number, known) = (family.number(), SERVICE_RANGES);
            (count > known).then(|| {
                Problem::new(
                    "ServiceCIDRs",
                    format!(
                        "are {count} ranges of IPv{number}, of which the first {known} are known \
                         to the programs: packets to free addresses of the others are not dropped"
                    ),
                    "give out ClusterIPs from fewer, larger ranges",
                )
            })
        });
        let problems = problems.collect();
        self.problems.set(Origin::Whole("ServiceCIDRs"), problems);
    }

    /// The current problems.
    pub(crate) const fn problems(&mut self) -> &mut Problems {
        &mut self.problems
    }

    fn plan(&mut self, name: &ServiceName) -> Vec<ServicePortPlan> {
        let Some(service) = self.model.service(name) else {
            self.problems.set(Origin::Plan(name.clone()), Vec::new());
            self.health_checks.remove(name);
            return Vec::new();
        };
        let context = PlanContext {
            node_name: &self.node_name,
            zone: self.model.node().zone.as_deref(),
            local_addresses: &self.local_addresses,
            node_addresses: &self.model.node().addresses,
            algorithm: self.algorithm,
        };
        let slices = self.model.slices(name);
        self.problems.set(Origin::Plan(name.clone()), check_service(service, slices.clone()));
        match health_check(service, slices.clone(), &self.node_name) {
            Some(health_check) => drop(self.health_checks.insert(name.clone(), health_check)),
            None => drop(self.health_checks.remove(name)),
        }
        plan_service(service, slices, &context)
    }

    fn store<T: Stored>(&mut self, update: Update<T>) {
        let touched = match update {
            Update::Reset(list) => {
                let names = list.iter().map(|parsed| parsed.key.to_string()).collect();
                self.problems.retain_objects(T::KIND, &names);
                self.unread.retain(|origin| match origin.split_once(' ') {
                    Some((kind, key)) if kind == T::KIND => names.contains(key),
                    _ => true,
                });
                let objects = list.into_iter().filter_map(|p| self.usable(p)).collect();
                T::reset(&mut self.model, objects)
            }
            Update::Apply(parsed) => {
                let key = parsed.key.clone();
                match self.usable(parsed) {
                    Some(object) => T::apply(&mut self.model, object),
                    None => T::delete(&mut self.model, &key),
                }
            }
            Update::Delete(key) => {
                self.set_unread(format!("{} {key}", T::KIND), false);
                self.problems.set(Origin::Object(T::KIND, key.to_string()), Vec::new());
                T::delete(&mut self.model, &key)
            }
        };
        self.dirty.extend(touched);
    }

    /// The object to keep under a key, `None` for none.
    fn usable<T: Stored>(&mut self, parsed: Parsed<T>) -> Option<T> {
        let origin = Origin::Object(T::KIND, parsed.key.to_string());
        self.problems.set(origin, parsed.problems);
        let object = match parsed.verdict {
            Verdict::Use(object) => Some(object),
            Verdict::Ignore => None,
            Verdict::Unreadable => {
                let before = T::get(&self.model, &parsed.key).cloned();
                let unread = before.is_none() && T::IS_PLANNED;
                self.set_unread(format!("{} {}", T::KIND, parsed.key), unread);
                return before;
            }
        };
        self.set_unread(format!("{} {}", T::KIND, parsed.key), false);
        object
    }
}
