use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http_body_util::Full;
use hyper::{Request, Response};
use kube::client::Body;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::*;
use crate::source::Event;

/// An API server whose lists are of this version; 0: it hangs.
fn client(version: &Arc<AtomicU64>) -> Client {
    let version = Arc::clone(version);
    let service = tower::service_fn(move |_request: Request<Body>| {
        let version = version.load(Ordering::Relaxed);
        async move {
            if version == 0 {
                std::future::pending::<()>().await;
            }
            let list = serde_json::json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": {"resourceVersion": version.to_string()}, "items": [],
            });
            Ok::<_, std::convert::Infallible>(Response::new(Full::from(list.to_string())))
        }
    });
    Client::new(service, "default")
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_set_back_is_noticed_whatever_the_watches_say() {
    let version = Arc::new(AtomicU64::new(100));
    let client = client(&version);
    let (events, _received) = mpsc::channel(8);
    let session = Session::new(String::new(), events);
    session.services.saw(Some("90"));
    session.slices.saw(Some("no number"));
    let notices = async |time| timeout(time, session.probe(client.clone())).await.is_ok();
    assert!(!notices(5 * PAUSE).await);
    // It grows, and a watch brings what is newer than the last list.
    version.store(120, Ordering::Relaxed);
    session.slices.saw(Some("115"));
    assert!(!notices(5 * PAUSE).await);
    session.slices.saw(Some("130"));
    assert!(notices(2 * PAUSE).await);
    session.slices.forget();
    assert!(!notices(5 * PAUSE).await);
    version.store(119, Ordering::Relaxed);
    assert!(notices(2 * PAUSE).await);
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_hangs_is_told_of_within_45_seconds_until_it_goes_on() {
    let version = Arc::new(AtomicU64::new(100));
    let client = client(&version);
    let (events, mut received) = mpsc::channel(64);
    let session = Session::new(String::new(), events);
    let stale = Rc::new(RefCell::new(Vec::new()));
    let listen = async {
        let since = Instant::now();
        while let Some(event) = received.recv().await {
            if let Event::Stale(stale_since) = event {
                stale.borrow_mut().push((since.elapsed(), stale_since.is_some()));
            }
        }
    };
    let script = async {
        sleep(2 * PAUSE + Duration::from_secs(1)).await;
        version.store(0, Ordering::Relaxed);
        sleep(Duration::from_secs(45)).await;
        assert!(stale.borrow().iter().map(|(_, is_stale)| *is_stale).eq([true]));
        version.store(101, Ordering::Relaxed);
        sleep(Duration::from_secs(45)).await;
        assert!(stale.borrow().iter().map(|(_, is_stale)| *is_stale).eq([true, false]));
    };
    tokio::select! {
        () = script => {}
        () = listen => panic!("nobody tells any more"),
        () = session.probe(client) => panic!("the store is not older"),
    }
}
