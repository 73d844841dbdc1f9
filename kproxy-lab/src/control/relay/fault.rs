//! What is wrong with an API server.

use std::time::Duration;

use serde_json::{Value, json};

/// What a [`super::Relay`] does to all that passes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing.
    None,
    /// Watches end, and every request is answered with this HTTP status.
    Refuse(u16),
    /// The history that watches need is gone (410): those that stand are told by an event, new ones by the HTTP
    /// status.
    Expire,
    /// Everything comes so much later.
    Slow(Duration),
    /// Connections stand, and nothing comes over them.
    Silent,
    /// Connections are cut, and new ones, too.
    Cut,
    /// Lists end in the middle and watches within an event, as if that were all.
    Truncate,
    /// Watches end, and every answer is a page for people, as of a gateway on the way.
    Garble,
    /// The object of this name has a field of the wrong kind.
    Spoil(String),
}

impl Fault {
    /// Spoils objects that are to be.
    pub(super) fn spoil(&self, answer: &mut Value) {
        let Self::Spoil(name) = self else { return };
        let objects = match answer.get_mut("items") {
            Some(Value::Array(items)) => items.iter_mut().collect(),
            _ => answer.get_mut("object").into_iter().collect::<Vec<_>>(),
        };
        for object in objects.into_iter().filter(|object| object["metadata"]["name"] == **name) {
            let field = if object.get("endpoints").is_some() { "endpoints" } else { "spec" };
            object[field] = json!("spoiled");
        }
    }
}

/// A Status as the API server sends it.
pub(super) fn status(code: u16) -> Value {
    let reason = match code {
        410 => "Expired",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        _ => "InternalError",
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("the relay says {code}"), "reason": reason, "code": code,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_spoiled_by_name() {
        let fault = Fault::Spoil("web".into());
        let object = |name: &str| json!({"metadata": {"name": name}, "spec": {"a": 1}});
        let mut list = json!({"items": [object("web"), object("other")]});
        fault.spoil(&mut list);
        assert_eq!(list["items"][0]["spec"], "spoiled");
        assert_eq!(list["items"][1], object("other"));
        let slice = json!({"metadata": {"name": "web"}, "endpoints": []});
        let mut event = json!({"type": "ADDED", "object": slice});
        fault.spoil(&mut event);
        assert_eq!(event["object"]["endpoints"], "spoiled");
        let untouched = event.clone();
        Fault::None.spoil(&mut event);
        assert_eq!(event, untouched);
    }
}
