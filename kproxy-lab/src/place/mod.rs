//! A node, a pod, the client or the router of a lab.

mod agent;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use parking_lot::Mutex;

use agent::Agent;

use crate::binary;
use crate::layout::{Addresses, Family, Names};
use crate::process::Process;
use crate::protocol::{Op, Serve, Sockets};
use crate::traffic::{
    Flood, FloodReport, Forge, Hold, HoldReport, HttpAnswer, HttpOutcome, Load, LoadReport,
    Outcome, Probe, Seen, Step, Transport, Verdict,
};
use crate::wait::poll_until;

/// How long a change may need to reach a proxy: far more than it does.
const PATIENCE: Duration = Duration::from_secs(60);

/// One network namespace of a lab with its cgroup. On a node this is the host.
#[derive(Debug)]
pub struct Place {
    name: String,
    netns: PathBuf,
    cgroup: PathBuf,
    log: PathBuf,
    addresses: Addresses,
    agent: Mutex<Option<Arc<Agent>>>,
}

impl Place {
    pub(crate) fn new(names: &Names, lab_cgroup: &Path, name: &str, addresses: Addresses) -> Self {
        Self {
            name: name.to_owned(),
            netns: names.netns_path(name),
            cgroup: lab_cgroup.join(Names::place_cgroup(name)),
            log: names.dir().join(format!("agent-{}.log", name.replace('/', "-"))),
            addresses,
            agent: Mutex::new(None),
        }
    }

    /// `n1`, `n1/a`, `client` or `router`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Addresses of `eth0`.
    pub const fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Address of `eth0` of one family.
    pub const fn ip(&self, family: Family) -> IpAddr {
        self.addresses.of(family)
    }

    /// A port on `eth0`.
    pub const fn at(&self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(family), port)
    }

    /// File of the network namespace, for `nsenter --net=`.
    pub fn netns(&self) -> &Path {
        &self.netns
    }

    /// Cgroup of the place's processes. A node's cgroup root is the parent of its host's cgroup.
    pub(crate) fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// Sends requests from a socket of this place.
    ///
    /// # Errors
    /// When the agent has ended; failed requests are in the outcome.
    pub fn probe(&self, probe: Probe) -> Result<Outcome> {
        self.agent()?.call(Op::Probe(probe))
    }

    /// Repeats a probe until its outcome is right: changes reach a proxy some time after they were
    /// made.
    ///
    /// # Errors
    /// When it is still wrong after a minute; the message holds the last outcome.
    pub fn probe_until(
        &self,
        probe: &Probe,
        is_right: impl Fn(&Outcome) -> bool,
    ) -> Result<Outcome> {
        let ask = || self.probe(probe.clone());
        let outcome = poll_until(PATIENCE, Duration::ZERO, ask, &is_right)?;
        if !is_right(&outcome) {
            bail!("{} still gets this from {}: {outcome}", self.name, probe.to);
        }
        Ok(outcome)
    }

    /// Runs a load from this place.
    ///
    /// # Errors
    /// The first failed operation.
    pub fn load(&self, load: Load) -> Result<LoadReport> {
        self.agent()?.call(Op::Load(load))
    }

    /// Sends a flood from this place; returns when it is over.
    ///
    /// # Errors
    /// When a packet cannot be sent.
    pub fn flood(&self, flood: Flood) -> Result<FloodReport> {
        self.agent()?.call(Op::Flood(flood))
    }

    /// Opens a connection, lets a forged packet meet it, and asks again some time later: what came
    /// of that last request.
    ///
    /// # Errors
    /// When it cannot connect, or the packet cannot be sent.
    pub fn forge(&self, forge: Forge) -> Result<Verdict> {
        self.agent()?.call(Op::Forge(forge))
    }

    /// Opens a connection that goes on in the background; returns when its first request is
    /// answered.
    ///
    /// # Errors
    /// When it cannot connect or the first request stays without an answer.
    pub fn hold(&self, hold: Hold) -> Result<Held> {
        let agent = self.agent()?;
        let number = agent.call(Op::Hold(hold))?;
        Ok(Held { agent, number })
    }

    /// A socket of this place that is bound to an address and port (0: any) and does what it is told.
    ///
    /// # Errors
    /// When it cannot be made or bound.
    pub fn socket(&self, transport: Transport, from: impl Into<SocketAddr>) -> Result<Stepped> {
        let (agent, from) = (self.agent()?, from.into());
        let number = agent.call(Op::Open { transport, from })?;
        Ok(Stepped { agent, number })
    }

    /// Answers on a TCP and UDP port of `eth0`'s addresses under the place's name.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn serve(&self, port: u16) -> Result<()> {
        self.serve_at(&self.addresses.both(), port, None)
    }

    /// Like [`Self::serve`], on the addresses given and kept on one CPU if named.
    ///
    /// # Errors
    /// When an address cannot be bound.
    pub fn serve_at(&self, addresses: &[IpAddr], port: u16, cpu: Option<usize>) -> Result<()> {
        let (name, addresses) = (self.name.clone(), addresses.to_vec());
        let sockets = Sockets::TcpAndUdp;
        self.agent()?.call(Op::Serve(Serve { name, port, sockets, addresses, cpu }))
    }

    /// Like [`Self::serve`], on an SCTP port; no other server of the place may have its number.
    ///
    /// # Errors
    /// When the port is taken or the kernel has no SCTP sockets.
    pub fn serve_sctp(&self, port: u16) -> Result<()> {
        let (name, addresses) = (self.name.clone(), self.addresses.both().to_vec());
        let sockets = Sockets::Sctp;
        self.agent()?.call(Op::Serve(Serve { name, port, sockets, addresses, cpu: None }))
    }

    /// Like [`Self::serve`], on a port of MPTCP, which TCP reaches too.
    ///
    /// # Errors
    /// When the port is taken or the kernel has no MPTCP sockets.
    pub fn serve_mptcp(&self, port: u16) -> Result<()> {
        let (name, addresses) = (self.name.clone(), self.addresses.both().to_vec());
        let sockets = Sockets::Mptcp;
        self.agent()?.call(Op::Serve(Serve { name, port, sockets, addresses, cpu: None }))
    }

    /// Closes the sockets of a server.
    ///
    /// # Errors
    /// When none serves on this port.
    pub fn stop_serving(&self, port: u16) -> Result<()> {
        self.agent()?.call(Op::StopServing { port })
    }

    /// The body of a page that a plain HTTP server shows to this place.
    ///
    /// # Errors
    /// When the server does not answer with status 200.
    pub fn http_get(&self, to: impl Into<SocketAddr>, path: &str) -> Result<String> {
        let to = to.into();
        match self.http(to, "GET", path, Duration::from_secs(10))? {
            HttpOutcome::Answered(answer) if answer.status == 200 => Ok(answer.body),
            HttpOutcome::Answered(HttpAnswer { status, body, .. }) => {
                bail!("http://{to}{path} answered {status}: {}", body.trim())
            }
            failed => bail!("get http://{to}{path}: {failed:?}"),
        }
    }

    /// One request to a plain HTTP server; `timeout` is for the connection and the answer, each.
    ///
    /// # Errors
    /// When the agent has ended; a failed request is in the outcome.
    pub fn http(
        &self,
        to: impl Into<SocketAddr>,
        method: &str,
        path: &str,
        timeout: Duration,
    ) -> Result<HttpOutcome> {
        let (to, method, path) = (to.into(), method.to_owned(), path.to_owned());
        self.agent()?.call(Op::Http { to, method, path, timeout })
    }

    /// A command that will run in the place: add arguments, then spawn it.
    ///
    /// # Errors
    /// When the `kproxy-lab` binary is not found.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let mut command = Command::new(binary::lab()?);
        command
            .args(["enter".as_ref(), "--netns".as_ref(), self.netns.as_os_str()])
            .args(["--cgroup".as_ref(), self.cgroup.as_os_str(), "--".as_ref()])
            .arg(program);
        Ok(command)
    }

    /// Runs a program in the place; its standard output.
    ///
    /// # Errors
    /// When it fails; the message holds its standard error.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let what = || format!("`{program} {}` in {}", arguments.join(" "), self.name);
        let output = self.command(program)?.args(arguments).output().with_context(what)?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr);
            bail!("{}: {}: {}", what(), output.status, message.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A program of this place, made with [`Self::command`], to start and watch through its log.
    ///
    /// # Errors
    /// When the folder for its logs cannot be made.
    pub fn process(&self, name: &'static str, command: Command) -> Result<Process> {
        Ok(Process::new(format!("{name} of {}", self.name), &self.dir()?, name, command))
    }

    /// A folder for files of the place's programs; it goes with the lab.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn dir(&self) -> Result<PathBuf> {
        let dir = self.log.with_extension("");
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        Ok(dir)
    }

    fn agent(&self) -> Result<Arc<Agent>> {
        let mut agent = self.agent.lock();
        if let Some(agent) = &*agent {
            return Ok(Arc::clone(agent));
        }
        let started = Agent::start(&self.name, &self.netns, &self.cgroup, &self.log)?;
        Ok(Arc::clone(agent.insert(Arc::new(started))))
    }

    fn running_agent(&self) -> Option<Arc<Agent>> {
        self.agent.lock().clone()
    }

    /// Ends the agent.
    pub(crate) fn end(&self) {
        if let Some(agent) = self.running_agent() {
            agent.end();
        }
    }

    /// Lets the agent live on without this process.
    pub(crate) fn detach(&self) -> Result<()> {
        self.running_agent().map_or(Ok(()), |agent| agent.call(Op::Detach))
    }
}

/// A connection that goes on in the background; left alone it ends with the lab.
#[derive(Debug)]
pub struct Held {
    agent: Arc<Agent>,
    number: u64,
}

impl Held {
    /// What it has seen so far.
    ///
    /// # Errors
    /// When the agent has ended.
    pub fn report(&self) -> Result<HoldReport> {
        self.agent.call(Op::HoldReport { hold: self.number, stop: false })
    }

    /// Closes it; what it has seen.
    ///
    /// # Errors
    /// When the agent has ended.
    pub fn stop(self) -> Result<HoldReport> {
        self.agent.call(Op::HoldReport { hold: self.number, stop: true })
    }
}

/// A socket that does what it is told; left alone it is closed with the lab.
#[derive(Debug)]
pub struct Stepped {
    agent: Arc<Agent>,
    number: u64,
}

impl Stepped {
    /// Has it do something.
    ///
    /// # Errors
    /// When the agent has ended; what fails is seen.
    pub fn step(&self, step: Step) -> Result<Seen> {
        self.agent.call(Op::Step { socket: self.number, step })
    }

    /// Closes it.
    ///
    /// # Errors
    /// When the agent has ended.
    pub fn close(self) -> Result<()> {
        self.agent.call(Op::Close { socket: self.number })
    }
}
