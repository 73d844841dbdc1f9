//! What is in force, in the form in which kube-proxy tells it: its configuration under the name of its group.

use hyper::body::Bytes;
use serde_json::json;

use super::settings::Settings;
use crate::config::KubeProxyConfiguration;
use crate::server::metrics::MODE;

/// The answer. As kube-proxy it names the node and the mode that are served, and words for addresses as they were
/// given (CFG-09).
pub(super) fn of(settings: &Settings) -> Bytes {
    let config = KubeProxyConfiguration {
        hostname_override: settings.node_name.clone(),
        mode: MODE.to_owned(),
        ..settings.config.clone()
    };
    Bytes::from(json!({ "kubeproxy.config.k8s.io": config }).to_string())
}
