use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::*;

#[test]
fn ready_is_who_follows_the_cluster() {
    let now = Instant::now();
    let status = |state: &State, path: &str| answer(state, path, now).status().as_u16();
    let new = State::default();
    assert_eq!((status(&new, "/livez"), status(&new, "/readyz")), (200, 503));
    let synced = State { last_synced: Some(Timestamp::now()), ..State::default() };
    assert_eq!(status(&synced, "/readyz"), 200, "whatever becomes of the Node");
    let late = State { behind_since: now.checked_sub(Duration::from_secs(61)), ..synced };
    assert_eq!((status(&late, "/livez"), status(&late, "/readyz")), (200, 503));
    assert_eq!(status(&late, "/healthz"), 404);
}

#[tokio::test]
async fn a_socket_that_somebody_has_left_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kproxy.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let (state, notices) = (watch::Sender::<State>::default(), Noticeboard::default());
    tokio::spawn(serve(path.clone(), state.subscribe(), Repairs::default(), notices.clone()));
    tokio::task::yield_now().await;
    let ask = move || {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: kproxy\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = tokio::task::spawn_blocking(ask).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nok"), "{answer}");
    assert!(notices.posted().is_empty());

    let nowhere = folder.path().join("missing/kproxy.sock");
    serve(nowhere, state.subscribe(), Repairs::default(), notices.clone()).await;
    assert!(notices.posted()[0].what.contains("cannot be listened on"));
}
