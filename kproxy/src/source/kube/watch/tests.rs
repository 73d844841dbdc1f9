use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use super::*;

/// An API server that knows nothing: its address.
fn ignorant() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let body = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404,
        "reason": "NotFound", "message": "the server could not find the requested resource",
    })
    .to_string();
    let answer = format!(
        "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    // Ends with the process: it waits for the next connection.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().filter_map(Result::ok) {
            let mut request = [0; 4096];
            let _read = stream.read(&mut request);
            let _written = stream.write_all(answer.as_bytes());
        }
    });
    url
}

#[tokio::test]
async fn node_08_an_api_server_without_service_cidrs_is_no_problem() {
    let url = ignorant();
    let client = Client::try_from(Config::new(url.parse().unwrap())).unwrap();
    let (events, mut received) = mpsc::channel(8);
    let session = Session::new(url, events);
    let some_time = Duration::from_secs(1);
    let waiting = tokio::time::timeout(some_time, session.service_cidrs(client.clone())).await;
    assert!(waiting.is_err(), "it asks again later");
    assert!(received.try_recv().is_err(), "nothing is told");
    // Of a kind that every API server has it is one.
    let waiting = tokio::time::timeout(some_time, session.services(client)).await;
    assert!(waiting.is_err());
    let told = received.try_recv().unwrap();
    assert!(matches!(told, Event::Problems { problems, .. } if problems.len() == 1));
}

#[tokio::test]
async fn an_own_node_that_cannot_be_read_is_reported_until_it_can_be_or_is_gone() {
    let (events, mut received) = mpsc::channel(8);
    let session = Session::new(String::new(), events);
    let node = |addresses: serde_json::Value| {
        let status = serde_json::json!({"addresses": addresses});
        let object = serde_json::json!({"metadata": {"name": "n1"}, "status": status});
        serde_json::from_value::<DeserializeGuard<objects::Node>>(object).unwrap()
    };
    let (good, bad) = (node(serde_json::json!([])), node(serde_json::json!("none")));
    let mut unreadable = false;
    for (node, is_there, problems) in [
        (Some(&good), true, None),
        (Some(&bad), false, Some(1)),
        (Some(&bad), false, Some(1)),
        (Some(&good), true, Some(0)),
        (Some(&bad), false, Some(1)),
        (None, false, Some(0)),
        (None, false, None),
    ] {
        assert_eq!(session.own_node("n1", node, &mut unreadable).await.is_some(), is_there);
        let told = received.try_recv().ok().map(|event| match event {
            Event::Problems { problems, .. } => problems.len(),
            other => panic!("{other:?}"),
        });
        assert_eq!(told, problems);
    }
}
