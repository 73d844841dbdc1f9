//! Session affinity: which backend each client was given last.

use std::{net::IpAddr, time::Duration};

use kproxy_common::{
    abi::map,
    affinity::{AffinityKey, AffinityValue},
    service::cluster_index,
};

use super::{
    error::ReadError,
    pins::Pins,
    rows::{AffinityClient, AffinityRow},
};
use crate::dataplane::kernel::{clock, hash};

/// Who is remembered, which backend, and for how long.
struct Remembered {
    client: AffinityClient,
    backend: (IpAddr, u16),
    idle: u32,
    expires: u32,
}

impl Pins {
    /// Clients that are remembered, sorted by service name and client. What is too old, and what is
    /// left of a service port without affinity, no longer counts and is left out. Reads the clock.
    ///
    /// # Errors
    /// A map could not be read.
    pub(crate) fn affinity(&self) -> Result<Vec<AffinityRow>, ReadError> {
        let names = self.names()?;
        let now = clock::now();
        let host_netns = self.config().host_netns;
        let mut rows = Vec::new();
        for (key, value) in self.affinity_entries()? {
            let id = key.service_port;
            let index = id.checked_mul(2).map(|_| cluster_index(id));
            let entry = index.and_then(|index| self.services.get(index));
            let timeout = entry.map_or(0, |entry| entry.affinity_seconds);
            let Some(remembered) = remembered(&key, &value, timeout, host_netns, now) else {
                continue;
            };
            rows.push(AffinityRow {
                client: remembered.client,
                addr: remembered.backend.0,
                port: remembered.backend.1,
                idle_seconds: remembered.idle,
                expires_in_seconds: remembered.expires,
                id,
                service: names.get(&id).cloned(),
            });
        }
        rows.sort_by(|a, b| (&a.service, a.id, a.client).cmp(&(&b.service, b.id, b.client)));
        Ok(rows)
    }

    pub(super) fn affinity_entries(&self) -> Result<Vec<(AffinityKey, AffinityValue)>, ReadError> {
        hash::read(&self.affinity).map_err(ReadError::of_map(map::AFFINITY))
    }
}

/// `None` when the time is up, or there is no affinity (any more).
fn remembered(
    key: &AffinityKey,
    value: &AffinityValue,
    timeout: u32,
    host_netns: u64,
    now: Duration,
) -> Option<Remembered> {
    let nanoseconds = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    let left = Duration::from_nanos(value.left(nanoseconds, timeout));
    if left.is_zero() {
        return None;
    }
    let client = match key.netns() {
        Some(cookie) if cookie == host_netns => AffinityClient::Node,
        Some(cookie) => AffinityClient::Netns(cookie),
        None => AffinityClient::Address(key.client.into()),
    };
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    Some(Remembered {
        client,
        backend: (value.addr.into(), value.port.get()),
        idle: seconds(now.saturating_sub(Duration::from_nanos(value.last))),
        expires: seconds(left),
    })
}

#[cfg(test)]
mod tests {
    use kproxy_common::{
        affinity::{client_kind, netns_client},
        net::Port,
    };

    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    fn netns(cookie: u64) -> AffinityKey {
        AffinityKey::new(netns_client(cookie), client_kind::NETNS, 4)
    }

    fn value(age: u64) -> AffinityValue {
        let last = (NOW - Duration::from_secs(age)).as_nanos() as u64;
        let backend: IpAddr = "10.244.1.5".parse().unwrap();
        AffinityValue { addr: backend.into(), last, port: Port::new(8080), pad: [0; 3] }
    }

    #[test]
    fn clients_are_told_apart() {
        let ip: IpAddr = "192.0.2.7".parse().unwrap();
        for (key, client) in [
            (AffinityKey::new(ip.into(), client_kind::ADDRESS, 4), AffinityClient::Address(ip)),
            (netns(42), AffinityClient::Netns(42)),
            (netns(77), AffinityClient::Node),
        ] {
            let row = remembered(&key, &value(10), 60, 77, NOW).unwrap();
            assert_eq!((row.client, row.idle, row.expires), (client, 10, 50));
            assert_eq!(row.backend, ("10.244.1.5".parse().unwrap(), 8080));
        }
    }

    #[test]
    fn what_no_longer_counts_is_left_out() {
        let key = netns(42);
        assert!(remembered(&key, &value(59), 60, 77, NOW).is_some());
        assert!(remembered(&key, &value(60), 60, 77, NOW).is_none());
        assert!(remembered(&key, &value(0), 0, 77, NOW).is_none(), "affinity was switched off");
    }
}
