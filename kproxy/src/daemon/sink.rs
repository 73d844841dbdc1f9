//! The kernel's data path as the control loop's sink; once it is attached, the tasks beside the loop.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use kproxy_common::config::config_flags;
use tokio::sync::{Notify, watch};
use tracing::info;

use super::devices::{self, Devices};
use super::kube_proxy::KubeProxy;
use super::settings::SocketLb;
use super::shared::SharedDataplane;
use super::sweeper::Sweeper;
use super::told::Told;
use super::{fragments, opt_out, sockets};
use crate::control::{DataplaneSink, Noticeboard, Report};
use crate::dataplane;
use crate::plan::{Change, OptOut, Protocol, ServicePortPlan};

/// The data path, shared with the tasks beside the loop.
pub(super) struct KernelSink {
    pub(super) dataplane: SharedDataplane,
    pub(super) devices: Devices,
    pub(super) kube_proxy: KubeProxy,
    pub(super) sweeper: Sweeper,
    pub(super) socket_lb: SocketLb,
    pub(super) told: Told,
    pub(super) opt_out: OptOut,
    /// Takes the pods that are opted out to the task that looks for them.
    pub(super) pods: watch::Sender<opt_out::Pods>,
    /// Wakes the task that closes sockets of backends that are gone.
    pub(super) stale: Arc<Notify>,
    pub(super) notices: Noticeboard,
}

impl DataplaneSink for KernelSink {
    fn reconcile(&mut self, desired: Vec<ServicePortPlan>) -> Report {
        let report = self.dataplane.lock().reconcile(desired);
        self.stale.notify_one();
        report
    }

    fn reread(&mut self) -> Report {
        let mut dataplane = self.dataplane.lock();
        let failed: Vec<_> = dataplane.reread().err().into_iter().collect();
        let timeouts = self.sweeper.timeouts.seconds();
        let writes = dataplane.change_config(|config| {
            self.told.fill_attached(config);
            config.timeouts = timeouts;
        });
        drop(dataplane);
        let node = self.devices.node.borrow().clone();
        self.notices.post(devices::ORIGIN, self.devices.serve(&node));
        Report { writes: usize::from(writes), ..failed.into() }
    }

    fn apply(&mut self, changes: Vec<Change>) -> Report {
        let udp = changes.iter().any(|change| change.id().protocol == Protocol::Udp);
        let report = self.dataplane.lock().apply(changes);
        if udp {
            self.stale.notify_one();
        }
        report
    }

    fn set_node_addresses(&mut self, addresses: &BTreeSet<IpAddr>) -> Report {
        self.dataplane.lock().set_node_addresses(addresses)
    }

    fn set_service_ranges(&mut self, ranges: &[IpNet]) -> Report {
        self.dataplane.lock().set_service_ranges(ranges)
    }

    fn set_opted_out_pods(&mut self, pods: Vec<BTreeSet<IpAddr>>) {
        self.pods.send_replace(Some(pods));
    }

    fn attach(&mut self) -> Result<(), dataplane::Error> {
        // With connections of kube-proxy's, nothing opens before all of them are known.
        let is_alone = self.kube_proxy.look() == 0;
        let held_back = if is_alone { None } else { self.dataplane.lock().hold_back() };
        let attached = self.attach_all();
        // What it has opened meanwhile.
        self.kube_proxy.look();
        if let Some(held_back) = held_back {
            self.dataplane.lock().serve(held_back);
            self.kube_proxy.look();
        }
        attached
    }
}

impl KernelSink {
    fn attach_all(&mut self) -> Result<(), dataplane::Error> {
        // What is attached to below is what the follower begins with: a change in between is news.
        let node = self.devices.node.borrow_and_update().clone();
        if !self.opt_out.is_empty() {
            // First who takes care of those whom the sockets' programs will leave alone. What this reports
            // is reported again below.
            self.devices.serve(&node);
            self.dataplane.lock().change_config(|config| config.flags |= config_flags::OPT_OUT);
        }
        let by_packets = self.socket_lb == SocketLb::None;
        if !by_packets {
            self.dataplane.lock().attach_cgroup()?;
        }
        // Neither before the hooks are there nor after they have gone: no connection falls between.
        self.dataplane.lock().change_config(|config| {
            config.flags &= !config_flags::NODE_PACKETS;
            config.flags |= if by_packets { config_flags::NODE_PACKETS } else { 0 };
        });
        tokio::spawn(self.devices.clone().follow(node.clone(), self.notices.clone()));
        tokio::spawn(self.devices.clone().open_pod_flows(self.notices.clone()));
        self.notices.post("flows", self.sweeper.clone().start().into_iter().collect());
        tokio::spawn(sockets::close_stale(
            self.dataplane.clone(),
            Arc::clone(&self.stale),
            self.sweeper.counts.clone(),
            self.notices.clone(),
        ));
        self.notices.post("fragments", fragments::start(&self.dataplane).into_iter().collect());
        if !self.opt_out.is_empty() {
            tokio::spawn(opt_out::follow(
                self.opt_out.clone(),
                self.dataplane.clone(),
                self.devices.node.clone(),
                self.pods.subscribe(),
                self.notices.clone(),
            ));
        }
        // One device that refuses the programs must not stop the others, nor the daemon.
        self.notices.post(devices::ORIGIN, self.devices.serve(&node));
        if by_packets && self.dataplane.lock().detach_cgroup()? {
            info!("the programs are off the cgroup: packets of sockets are translated now");
        }
        Ok(())
    }
}
