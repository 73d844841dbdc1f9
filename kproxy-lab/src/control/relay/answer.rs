//! One request: handed on, and what comes back broken where it is to be.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use http_body_util::channel::{Channel, Sender};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::Incoming;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;

use super::fault::{Fault, status};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<Either<Full<Bytes>, Channel<Bytes, Error>>>;

/// What was asked for.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) lists: AtomicUsize,
    pub(super) watches: AtomicUsize,
}

/// What each connection needs.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) fault: watch::Receiver<Fault>,
    pub(super) counts: Arc<Counts>,
}

/// Answers as the API server does, or as the fault of the moment says.
pub(super) async fn answer(shared: Shared, request: Request<Incoming>) -> Result<Answer, Error> {
    let Shared { client, mut fault, counts } = shared;
    let is_watch = request.uri().query().is_some_and(|query| query.contains("watch="));
    let count = if is_watch { &counts.watches } else { &counts.lists };
    count.fetch_add(1, Ordering::Relaxed);
    fault.wait_for(|fault| *fault != Fault::Silent).await?;
    let now = fault.borrow_and_update().clone();
    match now {
        Fault::Refuse(code) => return Ok(refusal(code)),
        Fault::Expire if is_watch => return Ok(refusal(410)),
        Fault::Garble => {
            return Ok(whole("text/html", "<html><body>Please sign in.</body></html>".into()));
        }
        Fault::Slow(time) => sleep(time).await,
        _ => {}
    }
    let mut onward = Request::get(request.uri().path_and_query().map_or("/", |path| path.as_str()));
    if let Some(accept) = request.headers().get(ACCEPT) {
        onward = onward.header(ACCEPT, accept);
    }
    let response = client.send(onward.body(Body::empty())?).await?;
    let (mut parts, body) = response.into_parts();
    // What the relay frames itself.
    parts.headers.remove(http::header::CONTENT_LENGTH);
    parts.headers.remove(http::header::TRANSFER_ENCODING);
    let body = if is_watch && parts.status == StatusCode::OK {
        let (sender, channel) = Channel::new(1);
        tokio::spawn(async move {
            // The client is gone, or the API server: either way the watch ends.
            let _over = pass_on(body, sender, fault).await;
        });
        Either::Right(channel)
    } else {
        let mut text = body.collect().await?.to_bytes();
        match now {
            Fault::Truncate => text.truncate(text.len() / 2),
            Fault::Spoil(_) => text = spoiled(&now, &text)?,
            _ => {}
        }
        Either::Left(Full::new(text))
    };
    Ok(Response::from_parts(parts, body))
}

/// Hands a watch on, event by event.
async fn pass_on(
    mut body: Body,
    mut sender: Sender<Bytes, Error>,
    mut fault: watch::Receiver<Fault>,
) -> Result<(), Error> {
    let mut rest = Vec::new();
    loop {
        let now = fault.borrow_and_update().clone();
        match now {
            Fault::Expire => {
                let event = json!({"type": "ERROR", "object": status(410)});
                return Ok(sender.send_data(format!("{event}\n").into()).await?);
            }
            Fault::Truncate => {
                return Ok(sender.send_data(r#"{"type":"MODIFIED","object":{"kin"#.into()).await?);
            }
            // Else nobody would ask.
            Fault::Refuse(_) | Fault::Garble => return Ok(()),
            _ => {}
        }
        let frame = tokio::select! {
            changed = fault.changed() => {
                changed?;
                continue;
            }
            frame = body.frame(), if now != Fault::Silent => frame,
        };
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                sender.abort(error.into());
                return Ok(());
            }
            None => return Ok(()),
        };
        rest.extend(frame.into_data().unwrap_or_default());
        let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else { continue };
        let events: Vec<u8> = rest.drain(..=end).collect();
        if let Fault::Slow(time) = now {
            sleep(time).await;
        }
        for event in events.split_inclusive(|byte| *byte == b'\n') {
            sender.send_data(spoiled(&now, event)?).await?;
        }
    }
}

/// The same JSON, spoiled where the fault says so.
fn spoiled(fault: &Fault, text: &[u8]) -> Result<Bytes, Error> {
    if !matches!(fault, Fault::Spoil(_)) {
        return Ok(Bytes::copy_from_slice(text));
    }
    let mut value: Value = serde_json::from_slice(text)?;
    fault.spoil(&mut value);
    Ok(format!("{value}\n").into())
}

fn refusal(code: u16) -> Answer {
    let mut response = whole("application/json", status(code).to_string());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_GATEWAY);
    if code == 429 {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn whole(kind: &'static str, text: String) -> Answer {
    let mut response = Response::new(Either::Left(Full::new(text.into())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
