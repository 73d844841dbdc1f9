//! Serving and probing by hand, from the namespace and cgroup of the caller.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use nix::ifaddrs::getifaddrs;

use crate::agent::{self, Holds};
use crate::protocol::{Serve, Sockets};
use crate::traffic::{Hold, Load, Probe, Transport, Work};

/// Kind of socket.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Socket {
    Tcp,
    Udp,
    UdpUnconnected,
    Sctp,
}

impl From<Socket> for Transport {
    fn from(socket: Socket) -> Self {
        match socket {
            Socket::Tcp => Self::Tcp,
            Socket::Udp => Self::UdpConnected,
            Socket::UdpUnconnected => Self::UdpUnconnected,
            Socket::Sctp => Self::Sctp,
        }
    }
}

/// What `probe` does.
#[derive(Args, Debug)]
pub(super) struct ProbeOptions {
    /// Address and port, such as 10.96.0.10:80 or [fd00::1]:80.
    to: SocketAddr,
    /// Kind of socket.
    #[arg(long, value_enum, default_value = "tcp")]
    socket: Socket,
    /// Number of requests.
    #[arg(long, default_value_t = 10)]
    count: u32,
    /// Milliseconds to wait for an answer.
    #[arg(long, default_value_t = 3000)]
    timeout: u64,
    /// Milliseconds between requests.
    #[arg(long, default_value_t = 0)]
    pause: u64,
    /// Bind to this address and port first.
    #[arg(long)]
    from: Option<SocketAddr>,
    /// Bytes to add to each request and answer.
    #[arg(long, default_value_t = 0)]
    padding: usize,
    /// Use one socket for all requests.
    #[arg(long)]
    same_socket: bool,
    /// Dial an IPv4 address from an IPv6 socket.
    #[arg(long)]
    mapped: bool,
    /// Print every request as JSON.
    #[arg(long)]
    json: bool,
}

/// Prints who answered. Fails when a request was not answered.
pub(super) fn probe(options: &ProbeOptions) -> Result<()> {
    let mut probe = Probe::new(options.socket.into(), options.to)
        .count(options.count)
        .timeout(Duration::from_millis(options.timeout))
        .pause(Duration::from_millis(options.pause))
        .padding(options.padding);
    if let Some(from) = options.from {
        probe = probe.from(from);
    }
    if options.same_socket {
        probe = probe.same_socket();
    }
    if options.mapped {
        probe = probe.mapped();
    }
    let outcome = agent::probe(&probe);
    if options.json {
        println!("{}", serde_json::to_string(&outcome)?);
    } else {
        println!("{outcome}");
    }
    if !outcome.all_answered() {
        bail!("{} of {} requests answered", outcome.answered(), outcome.attempts.len());
    }
    Ok(())
}

/// What `serve` does.
#[derive(Args, Debug)]
pub(super) struct ServeOptions {
    /// TCP and UDP port.
    port: u16,
    /// Make it an SCTP port instead.
    #[arg(long)]
    sctp: bool,
    /// What the server calls itself.
    #[arg(long, default_value = "server")]
    name: String,
    /// Addresses to bind (default: all).
    #[arg(long, value_delimiter = ',')]
    address: Vec<IpAddr>,
    /// CPU to run on.
    #[arg(long)]
    cpu: Option<usize>,
}

/// Answers probes until it is interrupted.
pub(super) fn serve(options: ServeOptions) -> Result<()> {
    let ServeOptions { port, sctp, name, mut address, cpu } = options;
    if address.is_empty() {
        address = own_addresses()?;
    }
    let addresses = address;
    let sockets = if sctp { Sockets::Sctp } else { Sockets::TcpAndUdp };
    agent::serve(&Serve { name, port, sockets, addresses, cpu })
}

/// Addresses of this namespace. Each is bound on its own: a UDP socket of the unspecified address
/// would answer from whichever address the route to the client prefers.
fn own_addresses() -> Result<Vec<IpAddr>> {
    let mut found: Vec<IpAddr> = getifaddrs()
        .context("list the addresses of this namespace")?
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| v4.ip().into());
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
        })
        // A link-local address belongs to one link, which a plain address does not name.
        .filter(|ip| !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()))
        .collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// What `load` does.
#[derive(Args, Debug)]
pub(super) struct LoadOptions {
    /// Address and port.
    to: SocketAddr,
    /// What one operation is.
    #[arg(long, value_enum, default_value = "connect")]
    work: Work,
    /// Milliseconds to run.
    #[arg(long, default_value_t = 1000)]
    duration: u64,
    /// Operations to stop after.
    #[arg(long)]
    operations: Option<u64>,
    /// CPU to run on.
    #[arg(long)]
    cpu: Option<usize>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Prints how many operations were done and what one took.
pub(super) fn load(options: &LoadOptions) -> Result<()> {
    let mut load =
        Load::new(options.work, options.to).duration(Duration::from_millis(options.duration));
    if let Some(operations) = options.operations {
        load = load.operations(operations);
    }
    if let Some(cpu) = options.cpu {
        load = load.cpu(cpu);
    }
    let report = agent::load(&load)?;
    if options.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{} operations, {:.0} ns each", report.operations, report.per_operation());
    }
    Ok(())
}

/// What `hold` does.
#[derive(Args, Debug)]
pub(super) struct HoldOptions {
    /// Address and port.
    to: SocketAddr,
    /// Kind of socket.
    #[arg(long, value_enum, default_value = "tcp")]
    socket: Socket,
    /// Seconds to run (default: until interrupted).
    #[arg(long)]
    seconds: Option<u64>,
}

/// Prints once a second what a long-lived connection has seen, as JSON. Fails when anything was
/// lost.
pub(super) fn hold(options: &HoldOptions) -> Result<()> {
    let holds = Holds::default();
    let number = holds.open(&Hold::new(options.socket.into(), options.to))?;
    for second in 1.. {
        thread::sleep(Duration::from_secs(1));
        let last = options.seconds.is_some_and(|seconds| second >= seconds);
        let report = holds.report(number, last)?;
        println!("{}", serde_json::to_string(&report)?);
        if report.broken.is_some() || (last && !report.is_flawless()) {
            bail!("the connection to {} lost something", options.to);
        }
        if last {
            break;
        }
    }
    Ok(())
}
