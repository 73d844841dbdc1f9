//! Where the parts of the daemon post what is wrong with themselves.

use std::collections::BTreeMap;

use tokio::sync::watch;

use crate::model::Problem;

/// The problems of each part that has some, by a name of its choice.
pub(super) type Notices = BTreeMap<String, Vec<Problem>>;

/// The board; clones are the same one. The control loop reads it and reports what is there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Noticeboard(watch::Sender<Notices>);

impl Noticeboard {
    /// Replaces what `origin` has posted; an empty list takes it back.
    pub(crate) fn post(&self, origin: &str, problems: Vec<Problem>) {
        self.0.send_if_modified(|notices| {
            if problems.is_empty() {
                return notices.remove(origin).is_some();
            }
            let before = notices.insert(origin.to_owned(), problems);
            before.as_ref() != notices.get(origin)
        });
    }

    /// What is posted now and later.
    pub(super) fn watch(&self) -> watch::Receiver<Notices> {
        self.0.subscribe()
    }
}

#[cfg(test)]
impl Noticeboard {
    /// Everything that is posted now.
    pub(crate) fn posted(&self) -> Vec<Problem> {
        self.0.borrow().values().flatten().cloned().collect()
    }

    /// Waits until what is posted meets `condition`, and returns it.
    pub(crate) async fn wait_for(&self, condition: impl Fn(&[Problem]) -> bool) -> Vec<Problem> {
        let mut notices = self.watch();
        while !condition(&self.posted()) {
            notices.changed().await.expect("the board is there");
        }
        self.posted()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_news() {
        let board = Noticeboard::default();
        let mut notices = board.watch();
        let problem = || vec![Problem::new("device eth0", "is down", "set it up")];
        let mut is_news = |problems| {
            board.post("devices", problems);
            let changed = notices.has_changed().unwrap();
            notices.mark_unchanged();
            changed
        };
        assert!(!is_news(Vec::new()));
        assert!(is_news(problem()));
        assert!(!is_news(problem()));
        assert!(is_news(Vec::new()));
        assert!(board.watch().borrow().is_empty());
    }
}
