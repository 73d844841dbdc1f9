//! The command line of `kproxy-lab`.

mod traffic;

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::thread;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand, ValueEnum};

use crate::lab::{Builder, Lab};
use crate::layout::Names;
use crate::lifetime::{clean, owner, signals, watcher};
use crate::proxy::{Mode, ProxyKind, Source};
use crate::wiring::Network;
use crate::{agent, cgroup, kubernetes, netns};

/// Clusters made of network namespaces, for trying and testing kproxy.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a lab and keep it until Ctrl-C.
    Up {
        /// Start etcd and the real kube-apiserver too.
        #[arg(long)]
        api_server: bool,
        /// Start a proxy on every node; without an API server kproxy reads the lab's manifests.
        #[arg(long)]
        proxy: Option<UpProxy>,
        /// Number of nodes.
        #[arg(long, default_value_t = 2)]
        nodes: u8,
        /// Names of the pods of every node.
        #[arg(long, value_delimiter = ',', default_value = "a,b")]
        pods: Vec<String>,
        /// How nodes and pods are connected.
        #[arg(long, value_enum, default_value_t)]
        network: Network,
    },
    /// List the labs on this machine.
    List,
    /// Find etcd, kube-apiserver, kube-proxy and CoreDNS, build what is missing (minutes), print the
    /// paths.
    Programs,
    /// Remove labs: those named, else those whose process has died.
    Clean {
        /// Ids of labs, dead or alive.
        ids: Vec<String>,
    },
    /// Run a command in a place of a lab: `kproxy-lab enter x7k2q n1/a -- ip addr`.
    Enter {
        /// Id of the lab.
        #[arg(required_unless_present = "netns")]
        lab: Option<String>,
        /// n1 (a node), n1/a (a pod), client, router or control.
        #[arg(required_unless_present = "netns")]
        place: Option<String>,
        /// Network namespace file instead of a lab and a place.
        #[arg(long, requires = "cgroup", conflicts_with_all = ["lab", "place"], hide = true)]
        netns: Option<PathBuf>,
        /// Cgroup that belongs to --netns.
        #[arg(long, requires = "netns", hide = true)]
        cgroup: Option<PathBuf>,
        /// The command (default: a shell).
        #[arg(last = true)]
        command: Vec<OsString>,
    },
    /// Ask a server from here: who answers, and whom does it see?
    Probe(traffic::ProbeOptions),
    /// Answer probes from here.
    Serve(traffic::ServeOptions),
    /// Measure connections or requests from here.
    Load(traffic::LoadOptions),
    /// Keep a connection busy and tell what it loses.
    Hold(traffic::HoldOptions),
    /// Serve and probe in a place; talks JSON on standard input and output.
    #[command(hide = true)]
    Agent {
        #[arg(long)]
        netns: PathBuf,
        #[arg(long)]
        cgroup: PathBuf,
    },
    /// Wait for the end of standard input, then remove a lab.
    #[command(hide = true)]
    Watch { lab: String },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum UpProxy {
    Kproxy,
    Nftables,
    Iptables,
}

impl UpProxy {
    const fn kind(self, api_server: bool) -> ProxyKind {
        match self {
            Self::Kproxy if api_server => ProxyKind::Kproxy(Source::Api),
            Self::Kproxy => ProxyKind::Kproxy(Source::Manifests),
            Self::Nftables => ProxyKind::KubeProxy(Mode::Nftables),
            Self::Iptables => ProxyKind::KubeProxy(Mode::Iptables),
        }
    }
}

impl Cli {
    /// Does what the command line says.
    ///
    /// # Errors
    /// When it cannot be done.
    pub fn run(self) -> Result<ExitCode> {
        match self.command {
            Action::Up { api_server, proxy, nodes, pods, network } => {
                let pods: Vec<&str> = pods.iter().map(String::as_str).collect();
                up(Lab::builder().nodes(nodes).pods(&pods).network(network), api_server, proxy)?;
            }
            Action::List => list()?,
            Action::Programs => {
                for path in [
                    kubernetes::etcd()?,
                    kubernetes::kube_apiserver()?,
                    kubernetes::kube_proxy()?,
                    kubernetes::coredns()?,
                ] {
                    println!("{}", path.display());
                }
            }
            Action::Clean { ids } => clean(&ids)?,
            Action::Enter { lab, place, netns, cgroup, command } => {
                let (netns, cgroup) = match (netns, cgroup, lab, place) {
                    (Some(netns), Some(cgroup), _, _) => (netns, cgroup),
                    (_, _, lab, place) => locate(
                        &lab.context("name a lab; `kproxy-lab list` shows them")?,
                        &place.context("name a place, such as n1 or n1/a")?,
                    )?,
                };
                enter(&netns, &cgroup, &command)?;
            }
            Action::Probe(options) => traffic::probe(&options)?,
            Action::Serve(options) => traffic::serve(options)?,
            Action::Load(options) => traffic::load(&options)?,
            Action::Hold(options) => traffic::hold(&options)?,
            Action::Agent { netns, cgroup } => agent::run(&netns, &cgroup)?,
            Action::Watch { lab } => watcher::run(&lab)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn up(lab: Builder, api_server: bool, proxy: Option<UpProxy>) -> Result<()> {
    signals::clean_on_signals()?;
    let lab = lab.build()?;
    let kind = proxy.map(|proxy| proxy.kind(api_server));
    if api_server || matches!(kind, Some(ProxyKind::KubeProxy(_))) {
        lab.start_control_plane()?;
    }
    if let Some(kind) = kind {
        lab.start_proxies(kind)?;
    }
    println!("lab {} is up; Ctrl-C removes it. Enter a place with:", lab.id());
    for name in lab.place_names() {
        let place = lab.place(&name)?;
        let [v4, v6] = place.addresses().both();
        println!("  kproxy-lab enter {} {name:<8}  # {v4} {v6}", lab.id());
    }
    match lab.control() {
        Ok(control) => println!(
            "API server, from inside a place: kubectl --kubeconfig {}",
            control.admin_kubeconfig().display()
        ),
        Err(_not_started) => println!("manifests: {}", lab.manifests().display()),
    }
    loop {
        thread::park();
    }
}

fn list() -> Result<()> {
    for found in owner::list()? {
        let state = if found.is_dead() { "dead" } else { "in use" };
        match &found.owner {
            Some(owner) if owner.kept => println!("{} kept, made by `{}`", found.id, owner.command),
            Some(owner) => {
                println!("{} {state}, process {} `{}`", found.id, owner.pid, owner.command);
            }
            None => println!("{} {state}, owner unknown", found.id),
        }
    }
    Ok(())
}

fn clean(ids: &[String]) -> Result<()> {
    if ids.is_empty() {
        for id in clean::clean_dead()? {
            println!("removed {id}");
        }
    }
    for id in ids {
        clean::clean(id)?;
        println!("removed {id}");
    }
    Ok(())
}

fn locate(lab: &str, place: &str) -> Result<(PathBuf, PathBuf)> {
    let names = Names::new(lab);
    let group = cgroup::root()?.join(names.cgroup()).join(Names::place_cgroup(place));
    Ok((names.netns_path(place), group))
}

/// Becomes the command, inside the place.
fn enter(netns: &std::path::Path, cgroup: &std::path::Path, command: &[OsString]) -> Result<()> {
    netns::enter(netns)?;
    cgroup::join_self(cgroup)?;
    let shell = [std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into())];
    let command = if command.is_empty() { &shell } else { command };
    let error = Command::new(&command[0]).args(&command[1..]).exec();
    Err(error).with_context(|| format!("run {}", command[0].display()))
}
