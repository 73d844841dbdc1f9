//! What the loop waits for.

use std::collections::BTreeSet;
use std::net::IpAddr;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::noticeboard::Notices;
use super::repairs::Repairs;
use crate::source;

/// Everything that can wake the loop.
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, on the stack: a box would only add an allocation an event"
)]
pub(super) enum Event {
    Source(source::Event),
    SourceEnded,
    Addresses(BTreeSet<IpAddr>),
    Notices(Notices),
    /// Somebody asks for a look at the kernel.
    Repair,
    /// The burst is over, or the Node has been waited for long enough.
    Flush,
    Retry,
    Stop,
}

/// Where it comes from.
pub(super) struct Inputs {
    pub(super) events: mpsc::Receiver<source::Event>,
    pub(super) addresses: watch::Receiver<BTreeSet<IpAddr>>,
    pub(super) addresses_ended: bool,
    pub(super) notices: watch::Receiver<Notices>,
    pub(super) repairs: Repairs,
    pub(super) shutdown: CancellationToken,
}

impl Inputs {
    /// Waits for the next thing to do; `None`: nothing is to be flushed or tried again.
    pub(super) async fn next(
        &mut self,
        flush_at: Option<Instant>,
        retry_at: Option<Instant>,
    ) -> Event {
        loop {
            // In this order, so that a flood of events cannot keep the loop from flushing.
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Event::Stop,
                () = at(flush_at) => return Event::Flush,
                () = at(retry_at) => return Event::Retry,
                changed = self.addresses.changed(), if !self.addresses_ended => match changed {
                    Ok(()) => {
                        let addresses = self.addresses.borrow_and_update().clone();
                        return Event::Addresses(addresses);
                    }
                    Err(_) => self.addresses_ended = true,
                },
                // The loop holds the board itself, so it does not end.
                Ok(()) = self.notices.changed() => {
                    return Event::Notices(self.notices.borrow_and_update().clone());
                }
                () = self.repairs.asked() => return Event::Repair,
                event = self.events.recv() => {
                    return event.map_or(Event::SourceEnded, Event::Source);
                }
            }
        }
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
