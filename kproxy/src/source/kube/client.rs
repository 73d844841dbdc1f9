//! The client of the API server: as kube makes it, but a connection that has gone silent is noticed.
//!
//! A connection that is cut without a RST (a firewall that forgets it, a node that loses power) says
//! nothing for ever, and a watch waits for as long as the server was asked to keep it open, five minutes.
//! So TCP asks the other end whether it is there, and every answer has to begin in time.

use std::time::Duration;

use hyper_util::client::legacy::{Client as HttpClient, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use kube::client::{ClientBuilder, ConfigExt as _};
use kube::{Client, Config};
use tower::{BoxError, ServiceBuilder, timeout::TimeoutLayer};

/// Connecting within a cluster takes milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Silence on a connection after which its other end is asked for a sign of life.
const QUIET: Duration = Duration::from_secs(10);
/// Time between two such questions, and how many may stay without an answer.
const ASK_AGAIN: Duration = Duration::from_secs(5);
const QUESTIONS: u32 = 3;
/// How long what was sent may stay without acknowledgement.
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);
/// How long until an answer begins: a list of 100,000 objects takes an API server a few seconds.
const ANSWER: Duration = Duration::from_secs(30);

/// Makes a client.
///
/// # Errors
/// The configuration cannot be used.
pub(super) fn client(config: Config) -> Result<Client, kube::Error> {
    if config.proxy_url.is_some() {
        // What kube has to say of that.
        return Client::try_from(config);
    }
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_keepalive(Some(QUIET));
    connector.set_keepalive_interval(Some(ASK_AGAIN));
    connector.set_keepalive_retries(Some(QUESTIONS));
    connector.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    let connector = config.rustls_https_connector_with_connector(connector)?;
    let service = ServiceBuilder::new()
        .layer(TimeoutLayer::new(ANSWER))
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(HttpClient::builder(TokioExecutor::new()).build(connector));
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}
