//! HTTP/2, as gRPC uses it: one connection for a long time, many requests at once. A server that
//! ends says so (GOAWAY) and finishes what it has begun.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::graceful::GracefulShutdown;
use kproxy_lab::Family::{V4, V6};
use kproxy_lab::{Place, Process, Source};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

use crate::peer::{self, Role, say};
use crate::rollout::{Life, Rollout};

/// Port of the servers.
const PORT: u16 = 8090;
/// Requests that a client has under way at once.
const AT_ONCE: u32 = 4;
/// Bytes of a request.
const REQUEST: usize = 2000;
/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// After so many answers a client says [`GONE_ON`].
const MANY: u64 = 50;
const GONE_ON: &str = "gone on";
/// An answer in pieces, so that one is always under way when a server ends.
const SLOW: &str = "/slow";

/// What a server has done.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Served {
    connections: u64,
    requests: u64,
}

/// What a client has seen.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Asked {
    /// Answers of each server.
    servers: BTreeMap<String, u64>,
    failed: Vec<String>,
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Answers requests with a name until SIGTERM, then ends as a server should.
pub(crate) fn serve(name: String, port: u16) {
    let name = Bytes::from(name);
    runtime().block_on(async {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await.unwrap();
        let mut end = signal(SignalKind::terminate()).unwrap();
        let (connections, requests) = (GracefulShutdown::new(), Arc::new(AtomicU64::new(0)));
        let mut served = Served::default();
        say("listening");
        loop {
            let (stream, _client) = tokio::select! {
                accepted = listener.accept() => accepted.unwrap(),
                _ = end.recv() => break,
            };
            // As gRPC has it; small answers would wait for acknowledgements otherwise.
            stream.set_nodelay(true).unwrap();
            served.connections += 1;
            let (name, requests) = (name.clone(), Arc::clone(&requests));
            let service = service_fn(move |request| {
                requests.fetch_add(1, Ordering::Relaxed);
                answer(request, name.clone())
            });
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connections.watch(connection));
        }
        drop(listener);
        connections.shutdown().await;
        served.requests = requests.load(Ordering::Relaxed);
        peer::report(&served);
    });
}

async fn answer(
    request: Request<Incoming>,
    name: Bytes,
) -> Result<Response<Channel<Bytes>>, Infallible> {
    let (sender, body) = Channel::new(1);
    tokio::spawn(send(sender, request, name));
    Ok(Response::new(body))
}

async fn send(mut sender: Sender<Bytes>, request: Request<Incoming>, name: Bytes) {
    let pieces = if request.uri().path() == SLOW { 10 } else { 0 };
    // A client that has gone away shows in its own report.
    let Ok(body) = request.into_body().collect().await else { return };
    if body.to_bytes().len() != REQUEST {
        return;
    }
    for _ in 0..pieces {
        sleep(Duration::from_millis(20)).await;
        if sender.send_data(Bytes::from_static(b".")).await.is_err() {
            return;
        }
    }
    let _client_gone = sender.send_data(name).await;
}

/// Asks over one connection until SIGTERM; says when another server answers than before.
pub(crate) fn ask(to: SocketAddr) {
    runtime().block_on(async {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .build::<_, Full<Bytes>>(connector);
        let asked = Rc::new(RefCell::new(Asked::default()));
        let tasks = tokio::task::LocalSet::new();
        let (stop, stopped) = tokio::sync::watch::channel(false);
        for task in 0..AT_ONCE {
            let (client, asked, stopped) = (client.clone(), Rc::clone(&asked), stopped.clone());
            tasks.spawn_local(async move {
                for number in task.. {
                    if *stopped.borrow() {
                        break;
                    }
                    let path = if number % 8 == 0 { SLOW } else { "/" };
                    let result = request(&client, to, path).await;
                    count(&mut asked.borrow_mut(), result);
                    sleep(Duration::from_millis(2)).await;
                }
            });
        }
        tasks.spawn_local(async move {
            signal(SignalKind::terminate()).unwrap().recv().await;
            stop.send_replace(true);
        });
        tasks.await;
        peer::report(&*asked.borrow());
    });
}

fn count(asked: &mut Asked, result: Result<String, String>) {
    match result {
        Ok(server) => {
            if !asked.servers.contains_key(&server) {
                say(&format!("first answer of {server}"));
            }
            *asked.servers.entry(server).or_default() += 1;
            if asked.servers.values().sum::<u64>() % MANY == 0 {
                say(GONE_ON);
            }
        }
        Err(error) => asked.failed.push(error),
    }
}

async fn request(
    client: &Client<HttpConnector, Full<Bytes>>,
    to: SocketAddr,
    path: &str,
) -> Result<String, String> {
    let request = Request::post(format!("http://{to}{path}"))
        .body(Full::new(Bytes::from_static(&[b'x'; REQUEST])))
        .map_err(|error| error.to_string())?;
    let response = timeout(PATIENCE, client.request(request))
        .await
        .map_err(|_elapsed| format!("{path}: no answer in time"))?
        .map_err(|error| format!("{path}: {error:?}"))?;
    if response.status() != StatusCode::OK {
        return Err(format!("{path}: {}", response.status()));
    }
    let body = timeout(PATIENCE, response.into_body().collect())
        .await
        .map_err(|_elapsed| format!("{path}: no end of an answer in time"))?
        .map_err(|error| format!("{path}: {error:?}"))?;
    let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    let name = text.trim_start_matches('.');
    if name.is_empty() { Err(format!("half an answer: {text:?}")) } else { Ok(name.to_owned()) }
}

fn start_server(pod: &Place) -> Process {
    let role = Role::Http2Server { name: pod.name().to_owned(), port: PORT };
    let server = pod.process("http2-server", peer::command(pod, &role)).unwrap();
    server.launch().unwrap();
    server.wait_until("its port", || Ok(server.log().contains("listening"))).unwrap();
    server
}

fn start_client(from: &Place, name: &'static str, to: SocketAddr) -> Process {
    let client = from.process(name, peer::command(from, &Role::Http2Client { to })).unwrap();
    client.launch().unwrap();
    client.wait_until("an answer", || Ok(client.log().contains("first answer"))).unwrap();
    client
}

/// Waits until a client has gone on for a while.
fn go_on(client: &Process) {
    let many = || client.log().matches(GONE_ON).count();
    let before = many();
    client.wait_until("many answers", || Ok(many() > before + 1)).unwrap();
}

#[test]
fn http2_connections_survive_a_rolling_update_without_a_failed_request() {
    let mut rollout = Rollout::new(Source::Manifests, PORT, json!({}));
    let lab = &rollout.lab;
    let mut servers: BTreeMap<_, _> = ["n1/a", "n2/a"]
        .map(|name| (name.to_owned(), start_server(&lab.place(name).unwrap())))
        .into();
    let clients = [
        start_client(&lab.pod("n1", "b"), "vip-v4", rollout.vip(V4)),
        start_client(&lab.pod("n2", "b"), "vip-v6", rollout.vip(V6)),
        start_client(&lab.node("n1"), "vip-v4", rollout.vip(V4)),
        start_client(&lab.client(), "node-port-v4", rollout.node_port("n1", V4)),
        start_client(&lab.client(), "node-port-v6", rollout.node_port("n2", V6)),
    ];
    for (node, old, new) in [("n1", "a", "c"), ("n2", "a", "c"), ("n1", "c", "d")] {
        clients.iter().for_each(go_on);
        let (was, is) = (format!("{node}/{old}"), format!("{node}/{new}"));
        let coming = rollout.lab.add_pod(node, new).unwrap();
        rollout.set(&is, Life::Starting);
        servers.insert(is.clone(), start_server(&coming));
        rollout.set(&is, Life::Ready);
        rollout.wait_used(&is);
        rollout.set(&was, Life::Terminating);
        rollout.wait_unused(&was);
        // Says GOAWAY, finishes its requests, and ends when every connection is closed.
        let leaving = servers.remove(&was).unwrap();
        assert!(leaving.stop().unwrap().success(), "{}", leaving.log());
        let served: Served = peer::reported(&leaving.log());
        assert!(served.requests >= 10 * served.connections, "{was}: {served:?}");
        rollout.set(&was, Life::Ended);
        rollout.remove(&was);
        rollout.lab.remove_pod(node, old).unwrap();
    }
    clients.iter().for_each(go_on);
    for client in clients {
        assert!(client.stop().unwrap().success(), "{}", client.log());
        let asked: Asked = peer::reported(&client.log());
        assert!(asked.failed.is_empty(), "{asked:?}\n{}{}", client.log(), rollout.logs());
        // Its first server is gone.
        assert!(asked.servers.len() > 1, "{asked:?}");
    }
}
