//! The client and its watches.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

use futures::future::ready;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use kube::config::Kubeconfig;
use kube::core::DeserializeGuard;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Config, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::client;
use super::decoder::Decoder;
use super::error::Error;
use super::newest::Newest;
use super::outage::{Failure, Outage};
use crate::model::{Node, Problem, ServiceCidr};
use crate::source::convert::{self, HEADLESS_LABEL, PROXY_NAME_LABEL};
use crate::source::{Event, Object, Update, objects};

/// Log filter directives for this source. The client logs each failed request as an error; what
/// there is to know of them is in the problems that this source reports, once.
pub(crate) const LOG_DIRECTIVES: &[&str] = &["kube_client=off", "kube_runtime=off"];

/// The standing problem of this source.
const ORIGIN: &str = "API server";
/// Time between two questions whether the API server knows ServiceCIDRs by now: it was upgraded.
const UNKNOWN_KIND_PAUSE: Duration = Duration::from_secs(600);

/// Settings of the API server source.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Kubeconfig to use; `None`: the service account of the pod kproxy runs in.
    pub kubeconfig: Option<PathBuf>,
    /// Address of the API server, in place of the one of the kubeconfig; alone: without credentials.
    pub url: Option<String>,
    /// Name of this node in the cluster.
    pub node_name: String,
    /// Namespaces whose Pods count: those that are opted out of the socket path.
    pub namespaces: BTreeSet<String>,
}

/// Watches the API server until `shutdown` or until nobody listens to `events`.
///
/// # Errors
/// The kubeconfig or the service account cannot be used. An API server that does not answer is no
/// error: it is waited for.
pub(crate) async fn run(
    settings: Settings,
    events: mpsc::Sender<Event>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let config = config(settings.kubeconfig, settings.url).await?;
    let url = config.cluster_url.to_string();
    let client =
        client::client(config).map_err(|source| Error::Client { url: url.clone(), source })?;
    info!(%url, node = settings.node_name, "watching the API server");
    let session = Session::new(url, events);
    let watches = async {
        loop {
            tokio::select! {
                () = session.services(client.clone()) => return,
                () = session.slices(client.clone()) => return,
                () = session.service_cidrs(client.clone()) => return,
                () = session.node(client.clone(), &settings.node_name) => return,
                () = session.pods(client.clone(), &settings.node_name, &settings.namespaces) => return,
                // What the watches have told is no longer so: they begin anew.
                () = session.probe(client.clone()) => session.forget(),
            }
        }
    };
    shutdown.run_until_cancelled(watches).await;
    Ok(())
}

/// As kube-proxy's `createClient`: the service account of the pod only where nothing else is given.
async fn config(kubeconfig: Option<PathBuf>, url: Option<String>) -> Result<Config, Error> {
    let url = url
        .map(|url| url.parse::<hyper::Uri>().map_err(|source| Error::Url { url, source }))
        .transpose()?;
    let mut config = match (kubeconfig, &url) {
        (Some(path), _) => {
            let unusable = |source| Error::of_kubeconfig(path.clone(), source);
            let file = Kubeconfig::read_from(&path).map_err(unusable)?;
            Config::from_custom_kubeconfig(file, &Default::default()).await.map_err(unusable)?
        }
        (None, Some(url)) => Config::new(url.clone()),
        (None, None) => Config::incluster().map_err(Error::ServiceAccount)?,
    };
    if let Some(url) = url {
        config.cluster_url = url;
    }
    Ok(config)
}

/// What the watches share. They run as one task, so a `RefCell` is enough.
pub(super) struct Session {
    pub(super) outage: RefCell<Outage>,
    /// A watch failed: time to probe.
    pub(super) failed: Notify,
    pub(super) events: mpsc::Sender<Event>,
    /// The newest of Services and EndpointSlices.
    pub(super) services: Newest,
    pub(super) slices: Newest,
}

impl Session {
    pub(super) fn new(url: String, events: mpsc::Sender<Event>) -> Self {
        let outage = RefCell::new(Outage::new(url));
        let (services, slices) = Default::default();
        Self { outage, failed: Notify::new(), events, services, slices }
    }

    fn forget(&self) {
        [&self.services, &self.slices].into_iter().for_each(Newest::forget);
    }

    async fn services(&self, client: Client) {
        let selector = watcher::Config::default()
            .labels(&format!("!{PROXY_NAME_LABEL}"))
            .fields("spec.clusterIP!=None");
        let decoder = Decoder::new(convert::service, convert::service_key);
        let newest = &self.services;
        self.objects::<objects::Service, _>(client, selector, decoder, newest, Event::Services)
            .await;
    }

    async fn slices(&self, client: Client) {
        let selector = watcher::Config::default().labels(&format!("!{HEADLESS_LABEL}"));
        let decoder = Decoder::new(convert::slice, convert::slice_key);
        let newest = &self.slices;
        self.objects::<objects::EndpointSlice, _>(client, selector, decoder, newest, Event::Slices)
            .await;
    }

    async fn objects<K, T>(
        &self,
        client: Client,
        selector: watcher::Config,
        mut decoder: Decoder<K, T>,
        newest: &Newest,
        event: fn(Update<T>) -> Event,
    ) where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
        T: Object,
    {
        let mut changes = changes::<K>(Api::all(client), selector);
        while let Some(change) = changes.next().await {
            let Some(change) = self.note(T::KIND, change).await else {
                decoder.restart();
                continue;
            };
            if let watcher::Event::InitApply(object)
            | watcher::Event::Apply(object)
            | watcher::Event::Delete(object) = &change
            {
                newest.saw(object.meta().resource_version.as_deref());
            }
            if let Some(update) = decoder.update(change)
                && self.events.send(event(update)).await.is_err()
            {
                return;
            }
        }
    }

    /// As [`Self::objects`]; an API server before 1.33 has no such objects, which is no problem:
    /// then no address counts as free.
    async fn service_cidrs(&self, client: Client) {
        let mut told = false;
        loop {
            let mut decoder = Decoder::new(convert::service_cidr, convert::service_cidr_key);
            let mut changes = changes::<objects::ServiceCIDR>(
                Api::all(client.clone()),
                watcher::Config::default(),
            );
            while let Some(change) = changes.next().await {
                let failure = change.as_ref().err().and_then(Failure::of);
                if failure.is_some_and(|failure| failure.is_unknown_kind()) {
                    break;
                }
                let Some(change) = self.note(ServiceCidr::KIND, change).await else {
                    decoder.restart();
                    continue;
                };
                if let Some(update) = decoder.update(change)
                    && self.events.send(Event::ServiceCidrs(update)).await.is_err()
                {
                    return;
                }
            }
            if !std::mem::replace(&mut told, true) {
                info!(
                    "the API server has no ServiceCIDRs (Kubernetes before 1.33): packets to free \
                     addresses of the Service range are not dropped"
                );
            }
            tokio::time::sleep(UNKNOWN_KIND_PAUSE).await;
        }
    }

    async fn node(&self, client: Client, name: &str) {
        let selector = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut changes = changes::<objects::Node>(Api::all(client), selector);
        let mut listed = None;
        // Whether the own Node is there and cannot be read, and whether the list at hand has it so.
        let (mut unreadable, mut listed_so) = (false, false);
        while let Some(change) = changes.next().await {
            let Some(change) = self.note("Node", change).await else {
                (listed, listed_so) = (None, false);
                continue;
            };
            let node = match change {
                watcher::Event::Init => {
                    (listed, listed_so) = (None, false);
                    continue;
                }
                watcher::Event::InitApply(node) => {
                    listed = self.own_node(name, Some(&node), &mut unreadable).await;
                    listed_so = listed.is_none();
                    continue;
                }
                watcher::Event::InitDone => {
                    if std::mem::take(&mut listed_so) {
                        continue;
                    }
                    if listed.is_none() {
                        self.own_node(name, None, &mut unreadable).await;
                        warn!(
                            node = name,
                            "no Node of this name; if that is wrong, see --hostname-override"
                        );
                    }
                    listed.take()
                }
                watcher::Event::Apply(node) => {
                    match self.own_node(name, Some(&node), &mut unreadable).await {
                        Some(node) => Some(node),
                        None => continue,
                    }
                }
                watcher::Event::Delete(_) => self.own_node(name, None, &mut unreadable).await,
            };
            if self.events.send(Event::Node(node)).await.is_err() {
                return;
            }
        }
    }

    /// The own Node, if it is there and can be read; if it cannot, it stays as it was, which is reported.
    /// `unreadable`: whether that was so last.
    async fn own_node(
        &self,
        name: &str,
        node: Option<&DeserializeGuard<objects::Node>>,
        unreadable: &mut bool,
    ) -> Option<Node> {
        let (node, problem) = match node.map(|node| &node.0) {
            None => (None, None),
            Some(Ok(node)) => (Some(convert::node(node)), None),
            Some(Err(invalid)) => (None, Some(unreadable_node(name, &invalid.error))),
        };
        let is_unreadable = problem.is_some();
        if is_unreadable || *unreadable {
            let origin = format!("Node {name}");
            let problems = problem.into_iter().collect();
            self.events.send(Event::Problems { origin, problems }).await.ok();
        }
        *unreadable = is_unreadable;
        node
    }

    /// Keeps the outage in step with a watch; hands on what is no error.
    pub(super) async fn note<K>(
        &self,
        watch: &str,
        change: watcher::Result<watcher::Event<K>>,
    ) -> Option<watcher::Event<K>> {
        let (problems, event) = match change {
            Ok(event) => (self.outage.borrow_mut().works(watch), Some(event)),
            Err(error) => {
                let failure = Failure::of(&error)?;
                self.failed.notify_one();
                (self.outage.borrow_mut().failed(watch, failure), None)
            }
        };
        self.tell(problems).await;
        event
    }

    /// Nobody listening is for the caller to notice.
    pub(super) async fn tell(&self, problems: Option<Vec<Problem>>) {
        if let Some(problems) = problems {
            let event = Event::Problems { origin: ORIGIN.to_owned(), problems };
            self.events.send(event).await.ok();
            let since = self.outage.borrow().since();
            self.events.send(Event::Stale(since)).await.ok();
        }
    }
}

/// A watch with backoff (0.8 s to 30 s) whose objects decode one by one. It gives no `Init`: that comes before the server is asked for anything, so it is no sign
/// of life, and as a success it would set the backoff back to its start at every attempt. A list
/// that breaks off gives an error.
pub(super) fn changes<K>(
    api: Api<DeserializeGuard<K>>,
    selector: watcher::Config,
) -> impl Stream<Item = watcher::Result<watcher::Event<DeserializeGuard<K>>>> + Unpin
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    watcher(api, selector)
        .try_filter(|event| ready(!matches!(event, watcher::Event::Init)))
        .default_backoff()
        .boxed()
}

fn unreadable_node(name: &str, error: &impl std::fmt::Display) -> Problem {
    Problem::new(
        format!("Node {name}"),
        format!("cannot be read: {error}; its zone and addresses stay as they were"),
        "mend the object",
    )
}

#[cfg(test)]
mod tests;
