//! An API server that does not answer: said once, then now and then, then that it is over.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as StdError;
use std::time::Duration;

use kube::runtime::watcher;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::model::Problem;

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
    /// `None` for what is no failure: 410 means that the history the watch wanted is gone, and it
    /// lists again by itself.
    pub(super) fn of(error: &watcher::Error) -> Option<Self> {
        let code = match error {
            watcher::Error::InitialListFailed(kube::Error::Api(status))
            | watcher::Error::WatchStartFailed(kube::Error::Api(status))
            | watcher::Error::WatchFailed(kube::Error::Api(status))
            | watcher::Error::WatchError(status) => Some(status.code),
            _ => None,
        };
        let answered = code.is_some() || matches!(error, watcher::Error::NoResourceVersion);
        // Whether it was the list or the watch that failed does not matter: the cause does.
        let cause = error.source().unwrap_or(error);
        (code != Some(410)).then(|| Self { text: causes(cause), answered, code })
    }

    fn remedy(&self) -> &'static str {
        match self.code {
            Some(401) => "check the credentials in the kubeconfig or the service account",
            Some(403) => {
                "grant list and watch on services, nodes and endpointslices.discovery.k8s.io"
            }
            _ => "check that the API server runs and that this node reaches it",
        }
    }
}

/// An error with its causes, without what they repeat of each other.
fn causes(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// Which watches fail now, and what was said about it.
pub(super) struct Outage {
    url: String,
    failing: BTreeMap<&'static str, (Failure, Instant)>,
    /// The causes as of the last answer.
    causes: BTreeSet<String>,
    /// The causes logged in this outage, and when one was logged last.
    logged: BTreeSet<String>,
    logged_at: Instant,
}

impl Outage {
    pub(super) fn new(url: String) -> Self {
        Self {
            url,
            failing: BTreeMap::new(),
            causes: BTreeSet::new(),
            logged: BTreeSet::new(),
            logged_at: Instant::now(),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.failing.is_empty()
    }

    /// A watch failed. Answers the current problems if they are others than before.
    pub(super) fn failed(&mut self, watch: &'static str, failure: Failure) -> Option<Vec<Problem>> {
        let now = Instant::now();
        self.failing.insert(watch, (failure, now));
        self.tell(now)
    }

    /// A watch gave an object or a complete list.
    pub(super) fn works(&mut self, watch: &'static str) -> Option<Vec<Problem>> {
        self.failing.remove(watch)?;
        self.tell(Instant::now())
    }

    /// The API server answered a request of another kind.
    pub(super) fn reached(&mut self) -> Option<Vec<Problem>> {
        let now = Instant::now();
        self.failing.retain(|_, (failure, at)| failure.answered && now - *at < STALE);
        self.tell(now)
    }

    /// Logs what is new and answers the problems to show if the causes changed. Watches that fail
    /// of one cause are one line.
    fn tell(&mut self, now: Instant) -> Option<Vec<Problem>> {
        let causes: BTreeSet<_> =
            self.failing.values().map(|(failure, _)| failure.text.clone()).collect();
        if causes.is_empty() && !self.causes.is_empty() {
            info!(url = %self.url, "the API server answers again");
            self.logged.clear();
        }
        if now - self.logged_at >= REMIND {
            self.logged.clear();
        }
        for error in &causes {
            if self.logged.insert(error.clone()) {
                warn!(
                    url = %self.url, %error,
                    "the API server cannot be used; trying again, the data path stays as it is"
                );
                self.logged_at = now;
            }
        }
        let changed = causes != self.causes;
        self.causes = causes;
        changed.then(|| self.problems())
    }

    fn problems(&self) -> Vec<Problem> {
        let object = format!("API server {}", self.url);
        let mut by_text: BTreeMap<&str, (Vec<&str>, &Failure)> = BTreeMap::new();
        for (watch, (failure, _)) in &self.failing {
            by_text.entry(&failure.text).or_insert((Vec::new(), failure)).0.push(watch);
        }
        by_text
            .into_iter()
            .map(|(text, (watches, failure))| {
                let what = format!("cannot watch {}: {text}", watches.join(", "));
                Problem::new(object.as_str(), what, failure.remedy())
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Failure {
        Failure { text: "connection refused".to_owned(), answered: false, code: None }
    }

    fn forbidden() -> Failure {
        Failure { text: "nodes is forbidden".to_owned(), answered: true, code: Some(403) }
    }

    #[tokio::test(start_paused = true)]
    async fn one_cause_is_told_once() {
        let mut outage = Outage::new("https://192.0.2.1:6443".to_owned());
        let problems = outage.failed("Services", refused()).unwrap();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].object, "API server https://192.0.2.1:6443");
        assert_eq!(outage.failed("Services", refused()), None);
        // The problem names one watch more only with the next change; the log line is the same.
        assert_eq!(outage.failed("EndpointSlices", refused()), None);
        assert_eq!(outage.works("Nodes"), None);
        assert_eq!(outage.works("Services"), None);
        assert_eq!(outage.works("EndpointSlices"), Some(Vec::new()));
        assert!(outage.is_over());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_ends_an_outage_but_no_refusal() {
        let mut outage = Outage::new("https://192.0.2.1:6443".to_owned());
        outage.failed("Services", refused());
        let problems = outage.failed("the own Node", forbidden()).unwrap();
        assert_eq!(problems.len(), 2);
        let problems = outage.reached().unwrap();
        assert_eq!(problems.len(), 1);
        assert!(problems[0].remedy.contains("grant"), "{}", problems[0]);
        assert_eq!(outage.reached(), None);
        tokio::time::advance(STALE).await;
        assert_eq!(outage.reached(), Some(Vec::new()));
    }
}
