//! Looks whether the node encrypts what passes its uplinks, which the programs cannot work with.

use std::time::Duration;

use tokio::time::sleep;
use tracing::debug;

use crate::control::Noticeboard;
use crate::node::xfrm;

/// Time between two looks.
const PERIOD: Duration = Duration::from_secs(60);
/// Where its problem is posted.
const ORIGIN: &str = "IPsec";

/// Looks from time to time and posts what is wrong.
pub(super) async fn watch(notices: Noticeboard) {
    loop {
        match xfrm::encrypting_policies() {
            Ok(count) => notices.post(ORIGIN, xfrm::problem(count).into_iter().collect()),
            // Without the right nothing else works either, and that is told.
            Err(error) => debug!(%error, "cannot look for IPsec policies"),
        }
        sleep(PERIOD).await;
    }
}
