//! Keeps kproxy's nftables table in place where it is needed, beside the control loop.
//!
//! Without the table the socket path works, and so does the packet path to backends on this node:
//! what is wrong with it is a reported problem and does not stop the daemon.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::node::nft::{self, Repair};
use crate::source::Event;

/// Time between two looks at the table, which cost two short runs of `nft`.
const PERIOD: Duration = Duration::from_secs(10);

/// The table as far as it is known.
pub(super) struct Table {
    /// Whether it is needed; `None`: not known yet, so it is left as it is.
    needed: watch::Receiver<Option<bool>>,
    /// What it looked like when it was written.
    written: Option<String>,
    /// Whether the last try failed.
    failing: bool,
}

impl Table {
    /// Writes the table if it is needed. What fails is tried again by [`Self::keep`].
    pub(super) fn start(
        mut needed: watch::Receiver<Option<bool>>,
        events: &mpsc::Sender<Event>,
    ) -> Self {
        let now = *needed.borrow_and_update();
        let mut table = Self { needed, written: None, failing: false };
        if now == Some(true)
            && let Some(event) = table.note(nft::repair(None))
        {
            // The channel is new, so there is room.
            let _has_room = events.try_send(event);
        }
        table
    }

    /// Looks at the table from time to time and writes it again when it is missing or changed.
    /// Removes it when it is not needed.
    pub(super) async fn keep(mut self, events: mpsc::Sender<Event>) {
        loop {
            let period = async {
                if self.written.is_some() || self.failing {
                    tokio::time::sleep(PERIOD).await;
                } else {
                    std::future::pending().await
                }
            };
            tokio::select! {
                () = period => {}
                changed = self.needed.changed() => if changed.is_err() { return },
            }
            let needed = *self.needed.borrow_and_update();
            let written = self.written.clone();
            // `nft` waits for others who change the rules: not on the thread of the control loop.
            let repair = tokio::task::spawn_blocking(move || match needed {
                Some(true) => nft::repair(written.as_deref()),
                Some(false) => nft::remove_if_present(),
                None => Ok(Repair::Intact),
            })
            .await;
            // The runtime is shutting down.
            let Ok(repair) = repair else { return };
            let event = self.note(repair);
            if let Some(event) = event
                && events.send(event).await.is_err()
            {
                return;
            }
        }
    }

    /// Takes in what came of a repair; what to tell the control loop.
    fn note(&mut self, repair: Result<Repair, nft::Error>) -> Option<Event> {
        let standing = |problems| Some(Event::Standing { origin: "nftables".to_owned(), problems });
        let error = match repair {
            Ok(repair) => {
                match repair {
                    Repair::Intact => {}
                    Repair::Removed => {
                        info!("the nftables table is not needed any more");
                        self.written = None;
                    }
                    Repair::Written(now) => {
                        if self.failing {
                            info!("the nftables table is in place");
                        } else if self.written.is_some() {
                            warn!(
                                "another program has changed or removed the nftables table inet \
                                 kproxy; it is written again"
                            );
                        }
                        self.written = Some(now);
                    }
                }
                let mended = std::mem::replace(&mut self.failing, false);
                return if mended { standing(Vec::new()) } else { None };
            }
            Err(error) => error,
        };
        self.failing = true;
        standing(vec![error.to_problem()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_and_taken_back_once_it_is_over() {
        let (_sender, needed) = watch::channel(Some(true));
        let mut table = Table { needed, written: None, failing: false };
        let problems = |event: Option<Event>| match event {
            Some(Event::Standing { origin, problems }) => {
                assert_eq!(origin, "nftables");
                Some(problems.len())
            }
            _ => None,
        };
        let failure = || Err(nft::Error::NoNft(std::io::ErrorKind::NotFound.into()));
        assert_eq!(problems(table.note(failure())), Some(1));
        assert_eq!(problems(table.note(failure())), Some(1));
        assert_eq!(problems(table.note(Ok(Repair::Written("a".into())))), Some(0));
        assert_eq!(problems(table.note(Ok(Repair::Intact))), None);
        assert_eq!(problems(table.note(Ok(Repair::Written("b".into())))), None);
        assert_eq!(table.written.as_deref(), Some("b"));
        assert_eq!(problems(table.note(Ok(Repair::Removed))), None);
        assert_eq!(table.written, None);
    }
}
