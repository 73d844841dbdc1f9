//! An API server that does not answer, as a problem that comes and goes.
//!
//! The control loop logs a problem once when it is new and once when it is gone, so only reminders
//! are logged here.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::runtime::watcher;
use tokio::time::Instant;
use tracing::warn;

use crate::errors::with_causes;
use crate::model::{Pod, Problem};
use crate::source::Object as _;

/// How often an outage that goes on is logged again.
const REMIND: Duration = Duration::from_secs(300);
/// A watch that has not failed for this long works: the longest pause between attempts is half of
/// it, and a watch that resumes without news gives no sign of its own.
const STALE: Duration = Duration::from_secs(120);

/// Why a watch failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Failure {
    /// The whole chain of causes.
    pub(super) text: String,
    /// The API server gave an answer, if a bad one.
    pub(super) answered: bool,
    code: Option<u16>,
}

impl Failure {
    /// There is no answer.
    pub(super) fn silent(text: String) -> Self {
        Self { text, answered: false, code: None }
    }

    /// `None` for what is no failure: 410 means that the history the watch wanted is gone, and it
    /// lists again by itself.
    pub(super) fn of(error: &watcher::Error) -> Option<Self> {
        let status = match error {
            watcher::Error::InitialListFailed(kube::Error::Api(status))
            | watcher::Error::WatchStartFailed(kube::Error::Api(status))
            | watcher::Error::WatchFailed(kube::Error::Api(status))
            | watcher::Error::WatchError(status) => Some(status),
            _ => None,
        };
        let text = match status {
            Some(status) if !status.message.is_empty() => status.message.clone(),
            // Whether it was the list or the watch that failed does not matter: the cause does.
            _ => with_causes(error.source().unwrap_or(error)),
        };
        let code = status.map(|status| status.code);
        let answered = code.is_some() || matches!(error, watcher::Error::NoResourceVersion);
        (code != Some(410)).then_some(Self { text, answered, code })
    }

    /// The API server has no such kind of object.
    pub(super) fn is_unknown_kind(&self) -> bool {
        self.code == Some(404)
    }

    fn remedy(&self, watch: &str) -> &'static str {
        match self.code {
            Some(401) => "check the credentials in the kubeconfig or the service account",
            Some(403) if watch.starts_with(Pod::KIND) => {
                "bind the ClusterRole kproxy-pods in that namespace, or take it out of \
                 --socket-lb-skip-namespaces"
            }
            Some(403) => {
                "grant list and watch on services, nodes, endpointslices.discovery.k8s.io and \
                 servicecidrs.networking.k8s.io"
            }
            _ => "look into the log of the API server",
        }
    }
}

/// Which watches fail now.
pub(super) struct Outage {
    url: String,
    failing: BTreeMap<String, (Failure, Instant)>,
    /// Why there is no answer. Several watches fail at a time and not always alike: the first
    /// cause is kept for as long as one of them has it.
    silence: Option<String>,
    /// When an answer was missed first: since then the view may be stale.
    since: Option<Timestamp>,
    problems: Vec<Problem>,
    told_at: Instant,
}

impl Outage {
    pub(super) fn new(url: String) -> Self {
        Self {
            url,
            failing: BTreeMap::new(),
            silence: None,
            since: None,
            problems: Vec::new(),
            told_at: Instant::now(),
        }
    }

    /// When an answer was missed first; `None`: none is missed.
    pub(super) const fn since(&self) -> Option<Timestamp> {
        self.since
    }

    pub(super) fn is_over(&self) -> bool {
        self.failing.is_empty()
    }

    /// A watch failed. Answers the current problems if they are others than before.
    pub(super) fn failed(&mut self, watch: &str, failure: Failure) -> Option<Vec<Problem>> {
        let now = Instant::now();
        self.failing.insert(watch.to_owned(), (failure, now));
        self.tell(now)
    }

    /// A watch gave an object or a complete list.
    pub(super) fn works(&mut self, watch: &str) -> Option<Vec<Problem>> {
        self.failing.remove(watch)?;
        self.tell(Instant::now())
    }

    /// The API server answered a request of another kind.
    pub(super) fn reached(&mut self) -> Option<Vec<Problem>> {
        let now = Instant::now();
        self.failing.retain(|_, (failure, at)| failure.answered && now - *at < STALE);
        self.tell(now)
    }

    fn tell(&mut self, now: Instant) -> Option<Vec<Problem>> {
        let silent = || self.failing.values().map(|(failure, _)| failure).filter(|f| !f.answered);
        if silent().all(|failure| self.silence.as_ref() != Some(&failure.text)) {
            self.silence = silent().next().map(|failure| failure.text.clone());
        }
        self.since = self.silence.as_ref().map(|_| self.since.unwrap_or_else(Timestamp::now));
        let problems = self.problems();
        if problems != self.problems {
            self.told_at = now;
            self.problems.clone_from(&problems);
            return Some(problems);
        }
        if !problems.is_empty() && now - self.told_at >= REMIND {
            self.told_at = now;
            for Problem { object, what, .. } in &problems {
                warn!(%object, %what, "still a problem");
            }
        }
        None
    }

    fn problems(&self) -> Vec<Problem> {
        let object = format!("API server {}", self.url);
        let silence = self.silence.as_ref().zip(self.since).map(|(text, since)| {
            Problem::new(
                object.as_str(),
                format!(
                    "does not answer since {since:.0}: {text}; trying again, the data path stays as it \
                     is, changes do not arrive"
                ),
                "check that the API server runs and that this node reaches it",
            )
        });
        let refusals = self.failing.iter().filter(|(_, (failure, _))| failure.answered);
        let refusals = refusals.map(|(watch, (failure, _))| {
            let what = format!("does not let {watch} be watched: {}; trying again", failure.text);
            Problem::new(object.as_str(), what, failure.remedy(watch))
        });
        silence.into_iter().chain(refusals).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://192.0.2.1:6443";

    fn silent(text: &str) -> Failure {
        Failure::silent(text.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn one_outage_is_one_problem() {
        let mut outage = Outage::new(URL.to_owned());
        let problems = outage.failed("Service", silent("connection refused")).unwrap();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].object, "API server https://192.0.2.1:6443");
        let since = outage.since().unwrap();
        assert!(problems[0].what.contains(&format!("since {since:.0}")), "{}", problems[0]);
        for (watch, text) in [
            ("Service", "connection refused"),
            ("Node", "timed out"),
            ("Service", "connection refused"),
            ("EndpointSlice", "connection refused"),
        ] {
            assert_eq!(outage.failed(watch, silent(text)), None);
        }
        // The cause that was told is no longer one of the current ones.
        assert_eq!(outage.works("Service"), None);
        let problems = outage.works("EndpointSlice").unwrap();
        assert!(problems[0].what.contains("timed out"), "{}", problems[0]);
        assert_eq!(outage.works("Node"), Some(Vec::new()));
        assert_eq!(outage.works("Node"), None);
        assert!(outage.is_over() && outage.since().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_ends_silence_but_no_refusal() {
        let mut outage = Outage::new(URL.to_owned());
        outage.failed("Service", silent("connection refused"));
        let forbidden =
            Failure { text: "nodes is forbidden".to_owned(), answered: true, code: Some(403) };
        assert_eq!(outage.failed("Node", forbidden).unwrap().len(), 2);
        let problems = outage.reached().unwrap();
        assert_eq!(problems.len(), 1);
        assert!(problems[0].remedy.contains("grant"), "{}", problems[0]);
        assert_eq!(outage.reached(), None);
        tokio::time::advance(STALE).await;
        assert_eq!(outage.reached(), Some(Vec::new()));
    }
}
