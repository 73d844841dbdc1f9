//! A client of a lab's API server for tests: any kind of object, one call after the other.

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail};
use kube::api::{
    Api as KubeApi, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::discovery::{Scope, pinned_kind};
use kube::{Client, Config};
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::netns;

/// Who changed a field, as the API server remembers it.
const MANAGER: &str = "kproxy-lab";

/// A client with all rights. Kinds are written as `Service` for the usual ones and as
/// `group/version/Kind` (core: `v1/Kind`) for all.
#[derive(Debug)]
pub struct Api {
    client: ClientBox,
    runtime: Handle,
    resources: Mutex<HashMap<GroupVersionKind, (ApiResource, Scope)>>,
    /// Dropped to end the runtime's thread.
    _stop: oneshot::Sender<()>,
}

/// `kube::Client` has no Debug of its own.
struct ClientBox(Client);

impl std::fmt::Debug for ClientBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Api {
    /// A client whose sockets are in a network namespace: all its work is done by one thread there.
    pub(super) fn start(netns: &Path, kubeconfig: &Path) -> Result<Self> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (sender, receiver) = channel();
        let (netns, kubeconfig) = (netns.to_owned(), kubeconfig.to_owned());
        thread::spawn(move || {
            let started = netns::enter(&netns).and_then(|()| {
                let mut builder = tokio::runtime::Builder::new_current_thread();
                let runtime = builder.enable_all().build().context("start a runtime")?;
                let client = runtime.block_on(connect(&kubeconfig))?;
                Ok((runtime, client))
            });
            match started {
                Ok((runtime, client)) => {
                    let _nobody_waits = sender.send(Ok((runtime.handle().clone(), client)));
                    // The other end is dropped, never sent to.
                    let _dropped = runtime.block_on(stopped);
                }
                Err(error) => {
                    let _nobody_waits = sender.send(Err(error));
                }
            }
        });
        let (runtime, client) = receiver.recv().context("start a client of the API server")??;
        Ok(Self { client: ClientBox(client), runtime, resources: Mutex::default(), _stop: stop })
    }

    /// Creates or changes every object of a YAML text of one or several documents (server-side
    /// apply), `status` included.
    ///
    /// # Errors
    /// The first object that is refused; those before it are applied.
    pub fn apply(&self, yaml: &str) -> Result<Vec<Value>> {
        documents(yaml)?.into_iter().map(|object| self.apply_object(object)).collect()
    }

    /// Creates or changes one object, `status` included; the object as it is now.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub fn apply_object(&self, object: impl Into<Value>) -> Result<Value> {
        let mut object = object.into();
        let target = Target::of(&object)?;
        let status = object.as_object_mut().and_then(|fields| fields.remove("status"));
        let api = self.api(&target)?;
        let name = target.name.clone();
        let applied = self.work(&format!("apply {target}"), async move {
            let params = PatchParams::apply(MANAGER).force();
            api.patch(&name, &params, &Patch::Apply(object)).await
        })?;
        match status {
            Some(status) => self.change_status(&target, &status),
            None => value(&applied),
        }
    }

    /// Creates an object in another name than [`Self::apply`] does, so that what it does not name stays when it is
    /// applied over.
    ///
    /// # Errors
    /// When it is there already, or refused.
    pub fn create(&self, object: impl Into<Value>) -> Result<Value> {
        let object = object.into();
        let target = Target::of(&object)?;
        let api = self.api(&target)?;
        let created = self.work(&format!("create {target}"), async move {
            let object: DynamicObject =
                serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
            let params =
                PostParams { field_manager: Some("somebody".to_owned()), ..PostParams::default() };
            api.create(&params, &object).await
        })?;
        value(&created)
    }

    /// Changes fields of an object's status (JSON merge patch); the object as it is now.
    ///
    /// # Errors
    /// When there is no such object or the API server refuses the change.
    pub fn patch_status(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        status: &Value,
    ) -> Result<Value> {
        self.change_status(&Target::new(kind, namespace, name)?, status)
    }

    fn change_status(&self, target: &Target, status: &Value) -> Result<Value> {
        let (api, name) = (self.api(target)?, target.name.clone());
        let patch = Patch::Merge(json!({"status": status}));
        let patched = self.work(&format!("patch the status of {target}"), async move {
            api.patch_status(&name, &PatchParams::default(), &patch).await
        })?;
        value(&patched)
    }

    /// Changes fields of an object (JSON merge patch, RFC 7396); the object as it is now.
    ///
    /// # Errors
    /// When there is no such object or the API server refuses the change.
    pub fn patch(&self, kind: &str, namespace: &str, name: &str, fields: Value) -> Result<Value> {
        let target = Target::new(kind, namespace, name)?;
        let (api, name) = (self.api(&target)?, target.name.clone());
        let patched = self.work(&format!("patch {target}"), async move {
            api.patch(&name, &PatchParams::default(), &Patch::Merge(fields)).await
        })?;
        value(&patched)
    }

    /// Changes an object as `kubectl patch --patch-file` does: by a strategic merge patch in YAML.
    ///
    /// # Errors
    /// As [`Self::patch`], and when the text is no YAML.
    pub fn patch_file(&self, kind: &str, namespace: &str, name: &str, text: &str) -> Result<Value> {
        let target = Target::new(kind, namespace, name)?;
        let fields: Value = serde_saphyr::from_str(text).context("read the patch")?;
        let (api, name) = (self.api(&target)?, target.name.clone());
        let patched = self.work(&format!("patch {target}"), async move {
            api.patch(&name, &PatchParams::default(), &Patch::Strategic(fields)).await
        })?;
        value(&patched)
    }

    /// An object; `None` if there is none of this name. The namespace of objects without one is
    /// empty.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Result<Option<Value>> {
        let target = Target::new(kind, namespace, name)?;
        let (api, name) = (self.api(&target)?, target.name.clone());
        let found = self.work(&format!("get {target}"), async move { api.get_opt(&name).await })?;
        found.as_ref().map(value).transpose()
    }

    /// All objects of a kind in a namespace (empty: in all).
    ///
    /// # Errors
    /// When the API server does not answer.
    pub fn list(&self, kind: &str, namespace: &str) -> Result<Vec<Value>> {
        let target = Target::new(kind, namespace, "")?;
        let api = self.api(&target)?;
        let found = self
            .work(&format!("list {kind}"), async move { api.list(&ListParams::default()).await })?;
        found.items.iter().map(value).collect()
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// When there is no such object.
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) -> Result<()> {
        let target = Target::new(kind, namespace, name)?;
        let (api, name) = (self.api(&target)?, target.name.clone());
        self.work(&format!("delete {target}"), async move {
            api.delete(&name, &DeleteParams::default()).await.map(drop)
        })
    }

    /// Deletes every object of a YAML text.
    ///
    /// # Errors
    /// The first object that cannot be deleted.
    pub fn delete_all(&self, yaml: &str) -> Result<()> {
        documents(yaml)?.iter().try_for_each(|object| {
            let target = Target::of(object)?;
            let kind = format!("{}/{}", target.kind.api_version(), target.kind.kind);
            self.delete(&kind, &target.namespace, &target.name)
        })
    }

    /// A token of a ServiceAccount, from the API server itself.
    ///
    /// # Errors
    /// When there is no such account.
    pub fn service_account_token(&self, namespace: &str, name: &str) -> Result<String> {
        let target = Target::new("ServiceAccount", namespace, name)?;
        let (api, name) = (self.api(&target)?, target.name.clone());
        let reply: Value = self.work(&format!("ask for a token of {target}"), async move {
            let request = json!({
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"expirationSeconds": 86_400},
            });
            api.create_subresource("token", &name, &PostParams::default(), &request).await
        })?;
        let token = reply["status"]["token"].as_str();
        Ok(token.context("the API server's answer holds no token")?.to_owned())
    }

    /// Whether the API server says that it is ready.
    pub(super) fn is_ready(&self) -> Result<bool> {
        let client = self.client.0.clone();
        self.work("ask for /readyz", async move {
            let request = http::Request::get("/readyz").body(Vec::new());
            client.request_text(request.map_err(kube::Error::HttpError)?).await
        })
        .map(|text| text == "ok")
    }

    /// Where objects like the target are: asked of the API server once for each kind.
    fn api(&self, target: &Target) -> Result<KubeApi<DynamicObject>> {
        let known = self.resources().get(&target.kind).cloned();
        let (resource, scope) = match known {
            Some(known) => known,
            None => {
                let (client, kind) = (self.client.0.clone(), target.kind.clone());
                let what = format!("find the kind of {target}");
                let found = self.work(&what, async move { pinned_kind(&client, &kind).await })?;
                let found = (found.0, found.1.scope);
                self.resources().insert(target.kind.clone(), found.clone());
                found
            }
        };
        let client = self.client.0.clone();
        Ok(match scope {
            Scope::Namespaced if !target.namespace.is_empty() => {
                KubeApi::namespaced_with(client, &target.namespace, &resource)
            }
            Scope::Namespaced | Scope::Cluster => KubeApi::all_with(client, &resource),
        })
    }

    fn resources(&self) -> MutexGuard<'_, HashMap<GroupVersionKind, (ApiResource, Scope)>> {
        self.resources.lock()
    }

    /// Has the client's thread do something; waits for it.
    fn work<T: Send + 'static>(
        &self,
        what: &str,
        work: impl Future<Output = kube::Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = channel();
        self.runtime.spawn(async move {
            let _nobody_waits = sender.send(work.await);
        });
        let result = receiver.recv().context("the API client's thread has ended")?;
        result.with_context(|| what.to_owned())
    }
}

pub(super) async fn connect(kubeconfig: &Path) -> Result<Client> {
    let read = Kubeconfig::read_from(kubeconfig)
        .with_context(|| format!("read {}", kubeconfig.display()))?;
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("use {}", kubeconfig.display()))?;
    Client::try_from(config).context("make a client of the API server")
}

fn documents(yaml: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).context("read YAML")?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

fn value(object: &DynamicObject) -> Result<Value> {
    serde_json::to_value(object).context("decode an object")
}

/// An object's kind and name.
struct Target {
    kind: GroupVersionKind,
    namespace: String,
    name: String,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ", self.kind.kind)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

impl Target {
    fn new(kind: &str, namespace: &str, name: &str) -> Result<Self> {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Ok(Self { kind: parse_kind(kind)?, namespace, name })
    }

    fn of(object: &Value) -> Result<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
        let metadata = &object["metadata"];
        if version.is_empty() || kind.is_empty() || metadata["name"].as_str().is_none() {
            bail!("an object lacks apiVersion, kind or metadata.name: {object}");
        }
        let kind = format!("{version}/{kind}");
        Self::new(&kind, &text(&metadata["namespace"]), &text(&metadata["name"]))
    }
}

fn parse_kind(kind: &str) -> Result<GroupVersionKind> {
    let parts: Vec<&str> = kind.split('/').collect();
    Ok(match parts[..] {
        [group, version, kind] => GroupVersionKind::gvk(group, version, kind),
        [version, kind] => GroupVersionKind::gvk("", version, kind),
        [kind @ ("Service" | "Node" | "Namespace" | "ServiceAccount" | "Pod" | "ConfigMap")] => {
            GroupVersionKind::gvk("", "v1", kind)
        }
        ["EndpointSlice"] => GroupVersionKind::gvk("discovery.k8s.io", "v1", "EndpointSlice"),
        _ => return Err(anyhow!("write kind `{kind}` as group/version/Kind")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_targets() {
        let kind = |text| parse_kind(text).unwrap().api_version();
        assert_eq!(kind("Service"), "v1");
        assert_eq!(kind("v1/Secret"), "v1");
        assert_eq!(
            kind("rbac.authorization.k8s.io/v1/ClusterRole"),
            "rbac.authorization.k8s.io/v1"
        );
        assert!(parse_kind("Gateway").is_err());
        let service: Value = crate::manifest::Service::new("web").into();
        assert_eq!(Target::of(&service).unwrap().to_string(), "Service default/web");
        assert!(Target::of(&json!({"kind": "Service"})).is_err());
    }
}
