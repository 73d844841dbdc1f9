//! The lab's control plane: etcd and the real kube-apiserver in a namespace of their own on the
//! nodes' subnet.

mod access;
mod api;
mod certificates;
mod relay;
mod store;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};

pub use api::Api;
pub use relay::{Fault, Relay};

use crate::layout::{self, Addresses, Family, SERVICE_CIDR_V4, SERVICE_CIDR_V6};
use crate::place::Place;
use crate::process::Process;
use crate::{kubernetes, manifest, mounts};
use access::Access;
use certificates::Files;

/// Port of the API server.
const PORT: u16 = 6443;
/// etcd listens in its own namespace only.
const ETCD: &str = "http://127.0.0.1:2379";

/// Folder of what etcd holds, below its folder.
const STORE: &str = "data";

/// The programs of a control plane.
pub(crate) struct Programs {
    etcd: PathBuf,
    api_server: PathBuf,
}

impl Programs {
    /// Finds them, or builds them, which may take minutes.
    pub(crate) fn find() -> Result<Self> {
        Ok(Self { etcd: kubernetes::etcd()?, api_server: kubernetes::kube_apiserver()? })
    }
}

/// A running control plane. It ends with the lab.
#[derive(Debug)]
pub struct ControlPlane {
    etcd: Process,
    api_server: Process,
    netns: PathBuf,
    api: Api,
    access: Access,
    kproxy: PathBuf,
    /// The relay's address.
    relay: SocketAddr,
    /// Folder of etcd's data.
    data: PathBuf,
}

impl ControlPlane {
    /// Starts etcd and the API server in a place, with these arguments besides the lab's usual ones,
    /// and writes the Nodes. `dir` is for their files.
    pub(crate) fn start(
        programs: &Programs,
        place: &Place,
        dir: &Path,
        nodes: &[Arc<Place>],
        arguments: &[&str],
    ) -> Result<Self> {
        let data = dir.join("etcd");
        fs::create_dir_all(&data).with_context(|| format!("make {}", data.display()))?;
        // In memory: etcd waits for the disk with every change.
        mounts::tmpfs(&data)?;
        let files = Files::make(dir, &server_names(place.addresses()))?;
        let access = Access::make(dir, place.at(Family::V4, PORT), &files.authority)?;

        let command = etcd_command(place, &programs.etcd, &data)?;
        let etcd = Process::new("etcd".into(), dir, "etcd", command);
        let mut command = server_command(place, &programs.api_server, dir, &files, &access)?;
        command.args(arguments);
        let api_server = Process::new("the API server".into(), dir, "kube-apiserver", command);
        etcd.launch()?;
        api_server.launch()?;
        let api = Api::start(place.netns(), &access.admin)?;
        let netns = place.netns().to_owned();
        let relay = place.at(Family::V4, relay::PORT);
        let kproxy = PathBuf::new();
        let mut control = Self { etcd, api_server, netns, api, access, kproxy, relay, data };
        control.wait_ready()?;
        // The API server's own Service comes shortly after its readiness.
        control.api_server.wait_until("the Service default/kubernetes", || {
            let there = |kind| -> Result<bool> {
                Ok(control.api.get(kind, "default", "kubernetes")?.is_some())
            };
            Ok(there("Service")? && there("EndpointSlice")?)
        })?;
        for node in nodes {
            control.api.apply_object(manifest::node(node))?;
        }
        control.api.apply(access::KPROXY_RIGHTS)?;
        control.kproxy = control.service_account_kubeconfig("kube-system", access::KPROXY)?;
        Ok(control)
    }

    /// A client with all rights.
    pub const fn api(&self) -> &Api {
        &self.api
    }

    /// A client with the rights that a kubeconfig gives.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn client(&self, kubeconfig: &Path) -> Result<Api> {
        Api::start(&self.netns, kubeconfig)
    }

    /// File for clients with all rights, to be used on the nodes.
    pub(crate) fn admin_kubeconfig(&self) -> &Path {
        &self.access.admin
    }

    /// File for kube-proxy: its user has the rights that Kubernetes gives kube-proxy.
    pub(crate) fn kube_proxy_kubeconfig(&self) -> &Path {
        &self.access.kube_proxy
    }

    /// File for kproxy: a ServiceAccount with rights to list and watch what kproxy reads.
    pub fn kproxy_kubeconfig(&self) -> &Path {
        &self.kproxy
    }

    /// Writes a file for clients that are a ServiceAccount, with a token from the API server.
    ///
    /// # Errors
    /// When there is no such account.
    pub fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let token = self.api.service_account_token(namespace, name)?;
        self.access.write(&format!("{namespace}-{name}"), &token)
    }

    /// Starts a relay that stands between its clients and the API server and reads there what kproxy may.
    ///
    /// # Errors
    /// When there is one already.
    pub fn start_relay(&self) -> Result<Relay> {
        let server = format!("http://{}", self.relay);
        // The relay has an account of its own.
        let kubeconfig = self.access.write_for("relay", "nobody", &server)?;
        Relay::start(&self.netns, &self.kproxy, kubeconfig)
    }

    /// Ends the API server; etcd keeps its data.
    ///
    /// # Errors
    /// When it does not run.
    pub fn stop_api_server(&self) -> Result<()> {
        self.api_server.kill()
    }

    /// Starts the API server again and waits until it is ready.
    ///
    /// # Errors
    /// When it runs, or does not get ready.
    pub fn start_api_server(&self) -> Result<()> {
        self.api_server.launch()?;
        self.wait_ready()
    }

    fn wait_ready(&self) -> Result<()> {
        self.api_server.wait_until("readiness", || {
            if !self.etcd.is_running() {
                bail!("etcd has ended: {}", self.etcd.log());
            }
            self.api.is_ready()
        })
    }

    /// Kills its processes; for the end of the lab.
    pub(crate) fn end(&self) {
        self.api_server.end();
        self.etcd.end();
    }
}

fn etcd_command(place: &Place, program: &Path, data: &Path) -> Result<Command> {
    let mut command = place.command(program)?;
    command.arg("--data-dir").arg(data.join(STORE));
    command.args(["--listen-client-urls", ETCD, "--advertise-client-urls", ETCD]);
    command.args(["--listen-peer-urls", "http://127.0.0.1:2380"]);
    Ok(command)
}

fn server_command(
    place: &Place,
    program: &Path,
    dir: &Path,
    files: &Files,
    access: &Access,
) -> Result<Command> {
    let mut command = place.command(program)?;
    let mut flag = |name: &str, value: &dyn AsRef<std::ffi::OsStr>| {
        let mut argument = std::ffi::OsString::from(format!("--{name}="));
        argument.push(value);
        command.arg(argument);
    };
    flag("etcd-servers", &ETCD);
    flag("bind-address", &"::");
    flag("secure-port", &PORT.to_string());
    flag("advertise-address", &place.ip(Family::V4).to_string());
    flag("cert-dir", &dir);
    flag("tls-cert-file", &files.certificate);
    flag("tls-private-key-file", &files.key);
    flag("token-auth-file", &access.tokens);
    flag("authorization-mode", &"RBAC");
    flag("service-account-issuer", &"https://kubernetes.default.svc");
    flag("service-account-signing-key-file", &files.token_key);
    flag("service-account-key-file", &files.token_public_key);
    flag("service-cluster-ip-range", &format!("{SERVICE_CIDR_V4},{SERVICE_CIDR_V6}"));
    // For DaemonSets like kproxy's own.
    flag("allow-privileged", &"true");
    Ok(command)
}

/// Names under which the API server is dialled: its addresses and those of its Service.
fn server_names(addresses: Addresses) -> Vec<String> {
    let first: [IpAddr; 2] = layout::first_service_ips();
    let addresses = addresses.both().into_iter().chain(first).map(|ip| ip.to_string());
    addresses.chain(["localhost".into(), "kubernetes.default.svc".into()]).collect()
}
