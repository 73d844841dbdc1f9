//! Keeps kproxy's nftables table in place where it is needed, beside the control loop.
//!
//! Without the table the socket path works, and so does the packet path to backends on this node:
//! what is wrong with it is a reported problem and does not stop the daemon.

use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};

use crate::control::Noticeboard;
use crate::dataplane::Dataplane;
use crate::node::nft::{self, Repair};

/// Time between two looks at the table, which cost two short runs of `nft`.
const PERIOD: Duration = Duration::from_secs(10);
/// Where its problems are posted.
const ORIGIN: &str = "nftables";

/// Tells whether the table is needed; `None`: not known yet, so it is left as it is.
#[derive(Clone)]
pub(super) struct Need(watch::Sender<Option<bool>>);

impl Need {
    pub(super) fn of(dataplane: &mut Dataplane) -> Self {
        Self(watch::Sender::new(dataplane.needs_netfilter()))
    }

    /// Looks again.
    pub(super) fn update(&self, dataplane: &mut Dataplane) {
        let needed = dataplane.needs_netfilter();
        self.0.send_if_modified(|old| std::mem::replace(old, needed) != needed);
    }
}

/// The table as far as it is known.
pub(super) struct Table {
    needed: watch::Receiver<Option<bool>>,
    /// What it looked like when it was written.
    written: Option<String>,
    /// Whether the last try failed.
    failing: bool,
    notices: Noticeboard,
}

impl Table {
    /// Writes the table if it is needed. What fails is tried again by [`Self::keep`].
    pub(super) fn start(need: &Need, notices: Noticeboard) -> Self {
        let mut needed = need.0.subscribe();
        let now = *needed.borrow_and_update();
        let mut table = Self { needed, written: None, failing: false, notices };
        if now == Some(true) {
            table.note(nft::repair(None));
        }
        table
    }

    /// Looks at the table from time to time and writes it again when it is missing or changed.
    /// Removes it when it is not needed.
    pub(super) async fn keep(mut self) {
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
            self.note(repair);
        }
    }

    /// Takes in what came of a repair, and posts what is wrong.
    fn note(&mut self, repair: Result<Repair, nft::Error>) {
        let failed = std::mem::replace(&mut self.failing, repair.is_err());
        let problem = match repair {
            Ok(repair) => {
                self.repaired(repair, failed);
                None
            }
            Err(error) => Some(error.to_problem()),
        };
        self.notices.post(ORIGIN, problem.into_iter().collect());
    }

    fn repaired(&mut self, repair: Repair, failed: bool) {
        match repair {
            Repair::Intact => {}
            Repair::Removed => {
                info!("the nftables table is not needed any more");
                self.written = None;
            }
            Repair::Written(now) => {
                if failed {
                    info!("the nftables table is in place");
                } else if self.written.is_some() {
                    warn!(
                        "another program has changed or removed the nftables table inet kproxy; it is \
                         written again"
                    );
                }
                self.written = Some(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_and_taken_back_once_it_is_over() {
        let (_sender, needed) = watch::channel(Some(true));
        let notices = Noticeboard::default();
        let mut table = Table { needed, written: None, failing: false, notices: notices.clone() };
        let failure = || Err(nft::Error::NoNft(std::io::ErrorKind::NotFound.into()));
        for (repair, problems, written) in [
            (failure(), 1, None),
            (failure(), 1, None),
            (Ok(Repair::Written("a".into())), 0, Some("a")),
            (Ok(Repair::Intact), 0, Some("a")),
            (Ok(Repair::Written("b".into())), 0, Some("b")),
            (Ok(Repair::Removed), 0, None),
        ] {
            table.note(repair);
            assert_eq!(notices.posted().len(), problems);
            assert_eq!(table.written.as_deref(), written);
        }
    }
}
