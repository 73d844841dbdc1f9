//! A question to the API server every twenty seconds: whether it is there, and whether it still knows what it has
//! told.
//!
//! A watch without news says nothing. An API server that hangs is silent like one without news, and its kernel
//! goes on answering TCP's questions. And one whose store was set back (restored from a copy) accepts a watch from
//! a resource version of its future, and tells nothing until it has got there.

use std::fmt::Debug;
use std::time::Duration;

use kube::api::ListParams;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::newest::{Newest, number};
use super::outage::Failure;
use super::watch::Session;
use crate::errors::with_causes;
use crate::source::objects;
use crate::timing;

/// Time between two questions while all is well.
const PAUSE: Duration = Duration::from_secs(20);
/// First and longest pause while there is no answer.
const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// How long an answer may take. With the pause before it less than the 45 s within which silence is to be told.
const ANSWER: Duration = Duration::from_secs(15);
/// The name of the question among the watches that fail.
const QUESTION: &str = "anything";

impl Session {
    /// Asks for as long as the API server's store goes forwards.
    pub(super) async fn probe(&self, client: Client) {
        loop {
            let mut pauses = timing::backoff(AGAIN);
            let mut pause = || pauses.next().unwrap_or(PAUSE);
            tokio::select! {
                () = sleep(PAUSE) => {}
                // A watch failed. That it works again may show only much later, when it has news.
                () = self.failed.notified() => sleep(pause()).await,
            }
            loop {
                match self.ask(&client).await {
                    Ok(true) => {
                        warn!(
                            "the API server knows less than it has told before, as after its store was \
                             restored from a copy: listing everything again"
                        );
                        return;
                    }
                    Ok(false) => {
                        let problems = self.outage.borrow_mut().reached();
                        self.tell(problems).await;
                    }
                    Err(text) => {
                        let failure = Failure::silent(text);
                        let problems = self.outage.borrow_mut().failed(QUESTION, failure);
                        self.tell(problems).await;
                    }
                }
                if self.outage.borrow().is_over() {
                    break;
                }
                sleep(pause()).await;
            }
        }
    }

    /// Whether the API server's store is older than it was; an error: why there is no answer.
    async fn ask(&self, client: &Client) -> Result<bool, String> {
        let answers = async {
            Ok(is_older::<objects::Service>(client, &self.services).await?
                || is_older::<objects::EndpointSlice>(client, &self.slices).await?)
        };
        timeout(ANSWER, answers).await.unwrap_or_else(|_| {
            Err(format!("no answer within {ANSWER:?} to a question of whether it is there"))
        })
    }
}

/// Whether the list of a kind is older than what was seen of it before it was asked for. Any answer is one, a
/// refusal too.
async fn is_older<K>(client: &Client, newest: &Newest) -> Result<bool, String>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let seen = newest.get();
    let one = ListParams::default().limit(1);
    match Api::<K>::all(client.clone()).list_metadata(&one).await {
        Ok(list) => {
            let version = list.metadata.resource_version.as_deref();
            newest.saw(version);
            Ok(number(version).is_some_and(|version| version < seen))
        }
        Err(kube::Error::Api(_)) => Ok(false),
        Err(error) => Err(with_causes(&error)),
    }
}

#[cfg(test)]
mod tests;
