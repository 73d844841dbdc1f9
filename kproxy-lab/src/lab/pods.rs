//! Adding and removing the pods of a lab.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};

use super::Lab;
use crate::place::Place;
use crate::wiring::{pods, settings};
use crate::{cgroup, layout, netns};

impl Lab {
    /// Adds a pod to a node; it answers on [`layout::POD_PORT`].
    ///
    /// # Errors
    /// When there is no such node or the pod exists.
    pub fn add_pod(&self, node: &str, pod: &str) -> Result<Arc<Place>> {
        let place = format!("{node}/{pod}");
        let number = self.node_number(node)?;
        if pod.is_empty() || pod.len() > 9 || !pod.bytes().all(|b| b.is_ascii_alphanumeric()) {
            bail!("`{pod}` is no pod name here: one to nine letters and digits");
        }
        let pod_place = {
            let mut places = self.places();
            if places.contains_key(&place) {
                bail!("lab {} has a pod {place} already", self.id());
            }
            let taken: Vec<_> = places.values().map(|place| place.addresses().v4).collect();
            let addresses = (10..=u8::MAX)
                .map(|host| layout::on_node(number, host))
                .find(|addresses| !taken.contains(&addresses.v4))
                .with_context(|| format!("node {node} has no free pod address"))?;
            let new = Arc::new(Place::new(&self.names, &self.cgroup, &place, addresses));
            places.insert(place.clone(), Arc::clone(&new));
            new
        };
        self.make_namespaces(std::slice::from_ref(&place), &[])?;
        let addresses = pod_place.addresses();
        let shape = &self.shape;
        self.ip(Some(node), &pods::port(shape, &self.names, &place, pod, addresses))?;
        let settings = settings::pod_port(shape, pod);
        netns::sysctl(&self.names.netns_path(node), &settings)?;
        self.ip(Some(&place), &pods::pod(shape, number, addresses))?;
        pod_place.serve(layout::POD_PORT)?;
        Ok(pod_place)
    }

    /// Removes a pod: its processes, its namespace, its veth.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn remove_pod(&self, node: &str, pod: &str) -> Result<()> {
        let name = format!("{node}/{pod}");
        let place = self.place(&name)?;
        place.end();
        cgroup::remove(place.cgroup())?;
        self.ip(Some(node), &pods::no_port(&self.shape, pod))?;
        netns::remove(&self.names.netns(&name))?;
        self.places().remove(&name);
        Ok(())
    }
}
