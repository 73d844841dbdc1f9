//! Follows links, addresses and default routes through rtnetlink.

use std::{collections::BTreeSet, time::Duration};

use futures::{StreamExt as _, channel::mpsc::UnboundedReceiver};
use rtnetlink::{
    Handle, MulticastGroup, new_multicast_connection, packet_core::NetlinkMessage,
    packet_route::RouteNetlinkMessage, sys::SocketAddr,
};
use tokio::{sync::watch, task::AbortHandle};
use wildmatch::WildMatch;

pub use super::rtnl::Error;
use super::{
    pods,
    roles::{self, Uplinks},
    rtnl::{self, News},
    sources,
    state::{NodeState, Served},
};
use crate::timing;

/// How long to wait for further messages before looking: one `ip link add` makes several.
const SETTLE: Duration = Duration::from_millis(50);
/// Time between two looks at everything when nothing is heard. The kernel says when it has lost
/// messages, so this is for the unforeseen.
const RECHECK: Duration = Duration::from_secs(300);
/// Shortest and longest pause before connecting again.
const RETRY: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(30)];

/// Names that replace the rules by which devices are found, where there are any.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Devices that lead to other nodes and to clients.
    pub uplinks: Vec<WildMatch>,
    /// Devices that lead to pods.
    pub pods: Vec<WildMatch>,
}

/// Starts following. The first state is complete when this returns; later ones arrive on the
/// channel, only when something has changed. The task ends when the receiver is dropped. `served`:
/// devices that have programs already.
///
/// # Errors
/// Netlink cannot be used. What fails later is logged and tried again.
pub async fn follow(names: Names, served: Served) -> Result<watch::Receiver<NodeState>, Error> {
    let (session, state) = Session::open(&names, served).await?;
    let (sender, receiver) = watch::channel(state);
    tokio::spawn(follow_always(session, names, sender));
    Ok(receiver)
}

/// Follows with one session after the other.
async fn follow_always(mut session: Session, names: Names, sender: watch::Sender<NodeState>) {
    loop {
        let Err(mut error) = session.follow(&names, &sender).await else { return };
        for pause in timing::backoff(RETRY) {
            tracing::warn!(%error, "cannot follow devices and addresses; connecting again");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = sender.closed() => return,
            }
            match Session::open(&names, session.served.clone()).await {
                Ok((fresh, state)) => {
                    session = fresh;
                    publish(&sender, state);
                    break;
                }
                Err(again) => error = again,
            }
        }
    }
}

fn publish(sender: &watch::Sender<NodeState>, state: NodeState) {
    sender.send_if_modified(|old| {
        let changed = *old != state;
        *old = state;
        changed
    });
}

/// A netlink connection that listens.
struct Session {
    handle: Handle,
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    connection: AbortHandle,
    /// Devices with a default route, as last read.
    defaults: BTreeSet<u32>,
    /// Devices with a role, as last decided.
    served: Served,
}

impl Session {
    /// Listens first and looks then, so that no change is lost in between.
    async fn open(names: &Names, served: Served) -> Result<(Self, NodeState), Error> {
        let (connection, handle, messages) = new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ])
        .map_err(Error::Open)?;
        let connection = tokio::spawn(connection).abort_handle();
        let mut session = Self { handle, messages, connection, defaults: BTreeSet::new(), served };
        let state = session.look(names, News::Routes).await?;
        Ok((session, state))
    }

    /// Ends well only when nobody listens any more.
    async fn follow(
        &mut self,
        names: &Names,
        sender: &watch::Sender<NodeState>,
    ) -> Result<(), Error> {
        loop {
            let mut news = tokio::select! {
                news = self.news() => news?,
                () = tokio::time::sleep(RECHECK) => News::Routes,
                () = sender.closed() => return Ok(()),
            };
            tokio::time::sleep(SETTLE).await;
            // Whatever has been announced by now is part of the look that follows.
            while let Ok(further) = tokio::time::timeout(Duration::ZERO, self.news()).await {
                news = news.max(further?);
            }
            publish(sender, self.look(names, news).await?);
        }
    }

    /// Waits for an announcement that matters.
    async fn news(&mut self) -> Result<News, Error> {
        loop {
            let (message, _) = self.messages.next().await.ok_or(Error::Ended)?;
            match rtnl::news(&message, &self.defaults) {
                News::Nothing => {}
                news => return Ok(news),
            }
        }
    }

    /// Reads what the node looks like now.
    async fn look(&mut self, names: &Names, news: News) -> Result<NodeState, Error> {
        if news == News::Routes {
            self.defaults = rtnl::default_route_devices(&self.handle).await?;
        }
        let (links, mut addresses) = rtnl::devices(&self.handle, &self.defaults).await?;
        addresses.retain(|ip| ip.is_loopback() || roles::is_global(ip));
        let Uplinks { devices, problems, left_out } =
            roles::uplinks(&links, &names.uplinks, &self.served.uplinks);
        let sources = sources::sources(&links, &devices);
        let pods = pods::pods(&links, &devices, &names.pods, &self.served.pods);
        let needs_masquerade = left_out || devices.iter().any(|device| !device.ethernet);
        let state = NodeState { devices, pods, sources, needs_masquerade, addresses, problems };
        self.served = Served::of(&state);
        Ok(state)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It would wait for messages that nobody reads.
        self.connection.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_that_ends_is_replaced() {
        let opened = Session::open(&Names::default(), Served::default()).await;
        let (session, state) = opened.unwrap();
        let connection = session.connection.clone();
        // Not what the node looks like: only a fresh look can tell.
        let (sender, mut receiver) = watch::channel(NodeState::default());
        tokio::spawn(follow_always(session, Names::default(), sender));
        connection.abort();
        let seen = receiver.wait_for(|seen| seen.addresses == state.addresses);
        tokio::time::timeout(Duration::from_secs(20), seen).await.unwrap().unwrap();
    }
}
