//! The control plane of a lab.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};

use super::Lab;
use crate::control::{ControlPlane, Programs};
use crate::layout;
use crate::place::Place;
use crate::wiring::nodes;

impl Lab {
    /// Starts etcd and the real kube-apiserver, and writes the lab's Nodes. The first use on a
    /// machine builds the API server, which takes minutes.
    ///
    /// # Errors
    /// When it runs already, a program is missing, or the API server does not get ready.
    pub fn start_control_plane(&self) -> Result<&ControlPlane> {
        self.start_control_plane_with(&[])
    }

    /// As [`Self::start_control_plane`], with these arguments of the API server besides the lab's
    /// usual ones.
    ///
    /// # Errors
    /// As for [`Self::start_control_plane`].
    pub fn start_control_plane_with(&self, arguments: &[&str]) -> Result<&ControlPlane> {
        if self.control.get().is_some() {
            bail!("lab {} has a control plane already", self.id());
        }
        // All programs first: building one may take minutes.
        let programs = Programs::find()?;
        let place = self.add_control_place()?;
        let dir = self.dir().join("control");
        let nodes = self.nodes().iter().map(|node| self.place(node)).collect::<Result<Vec<_>>>()?;
        let control = ControlPlane::start(&programs, &place, &dir, &nodes, arguments)?;
        Ok(self.control.get_or_init(|| control))
    }

    /// The running control plane.
    ///
    /// # Errors
    /// Before [`Self::start_control_plane`].
    pub fn control(&self) -> Result<&ControlPlane> {
        self.control.get().with_context(|| {
            format!("lab {} has no API server; call start_control_plane() first", self.id())
        })
    }

    /// Makes the control plane's place.
    fn add_control_place(&self) -> Result<Arc<Place>> {
        let (name, host) = ("control".to_owned(), layout::CONTROL);
        self.make_namespaces(std::slice::from_ref(&name), &[])?;
        self.ip(Some("router"), &nodes::fabric_port_of(&self.names, &name))?;
        self.ip(Some(&name), &nodes::on_fabric(host))?;
        let place = Place::new(&self.names, &self.cgroup, &name, layout::on_fabric(host));
        let place = Arc::new(place);
        self.places().insert(name, Arc::clone(&place));
        Ok(place)
    }
}
