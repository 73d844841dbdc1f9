//! Who asks the loop to look at the kernel again, as `kproxy verify --repair` does, and what becomes of it.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, oneshot};

/// What was asked for; clones are the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Repairs(Arc<Asked>);

#[derive(Debug, Default)]
struct Asked {
    waiting: Mutex<Vec<oneshot::Sender<usize>>>,
    news: Notify,
}

impl Repairs {
    /// Has the loop bring the data path in step with the plan, whatever it knew of it. How much was written;
    /// `None`: the loop is not in step yet, or has ended.
    pub(crate) async fn ask(&self) -> Option<usize> {
        let (sender, receiver) = oneshot::channel();
        self.waiting().push(sender);
        self.0.news.notify_one();
        receiver.await.ok()
    }

    /// Waits until somebody asks.
    pub(super) async fn asked(&self) {
        self.0.news.notified().await;
    }

    /// Tells all who have asked. `None`: nothing could be done.
    pub(super) fn answer(&self, writes: Option<usize>) {
        for asker in std::mem::take(&mut *self.waiting()) {
            if let Some(writes) = writes {
                // One that has gone meanwhile wants no answer.
                asker.send(writes).ok();
            }
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<oneshot::Sender<usize>>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
