//! A relay between clients and the API server that breaks what passes, on command.

mod answer;
mod fault;

use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use anyhow::{Context as _, Result};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

use answer::{Counts, Shared};
pub use fault::Fault;

use super::api::connect;
use crate::netns;

/// Port of the relay.
pub(super) const PORT: u16 = 6444;

/// Stands between clients and the API server. It speaks plain HTTP with its clients, and with the API server
/// under an account of its own.
#[derive(Debug)]
pub struct Relay {
    kubeconfig: PathBuf,
    fault: watch::Sender<Fault>,
    counts: Arc<Counts>,
    /// Dropped to end the relay's thread.
    _stop: oneshot::Sender<()>,
}

impl Relay {
    /// Starts it in a network namespace. `account`: the file with which it reaches the API server; `kubeconfig`:
    /// that of its own clients.
    pub(super) fn start(netns: &Path, account: &Path, kubeconfig: PathBuf) -> Result<Self> {
        let (fault, receiver) = watch::channel(Fault::None);
        let (stop, stopped) = oneshot::channel();
        let (started, start) = channel();
        let counts = Arc::<Counts>::default();
        let (netns, account) = (netns.to_owned(), account.to_owned());
        let shared_counts = Arc::clone(&counts);
        thread::spawn(move || {
            if let Err(error) = serve(&netns, &account, receiver, shared_counts, stopped, &started)
            {
                let _nobody_waits = started.send(Err(error));
            }
        });
        start.recv().context("start a relay to the API server")??;
        Ok(Self { kubeconfig, fault, counts, _stop: stop })
    }

    /// File for its clients.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Breaks what passes from now on, that of connections that stand too.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// Lists of objects that were asked for so far.
    pub fn lists(&self) -> usize {
        self.counts.lists.load(Ordering::Relaxed)
    }

    /// Watches that were asked for so far.
    pub fn watches(&self) -> usize {
        self.counts.watches.load(Ordering::Relaxed)
    }
}

/// Serves until the sender of `stopped` is gone.
fn serve(
    netns: &Path,
    account: &Path,
    fault: watch::Receiver<Fault>,
    counts: Arc<Counts>,
    stopped: oneshot::Receiver<()>,
    started: &Sender<Result<()>>,
) -> Result<()> {
    netns::enter(netns)?;
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().context("start a runtime")?;
    runtime.block_on(async {
        let client = connect(account).await?;
        let listener = TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT))).await;
        let listener = listener.with_context(|| format!("listen on port {PORT}"))?;
        let _nobody_waits = started.send(Ok(()));
        let shared = Shared { client, fault, counts };
        tokio::select! {
            // The other end is dropped, never sent to.
            _dropped = stopped => {}
            () = accept(&listener, &shared) => {}
        }
        Ok(())
    })
}

async fn accept(listener: &TcpListener, shared: &Shared) {
    loop {
        // A connection that is gone before it was taken.
        let Ok((stream, _)) = listener.accept().await else { continue };
        tokio::spawn(connection(stream, shared.clone()));
    }
}

/// Serves a connection until it ends or is cut.
async fn connection(stream: TcpStream, shared: Shared) {
    let mut fault = shared.fault.clone();
    let service = service_fn(move |request| answer::answer(shared.clone(), request));
    let serve = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // How a connection ends is for its client to judge.
        _ended = serve => {}
        _cut = fault.wait_for(|fault| matches!(fault, Fault::Cut)) => {}
    }
}
