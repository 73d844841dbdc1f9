//! Names for addresses: places, Services and what cases write for them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use kproxy_lab::Family;
use serde_json::Value;

/// Name of the time at which it is read.
const NOW: &str = "now";

/// What is known by a name.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    addresses: BTreeMap<String, Vec<IpAddr>>,
    /// Backends that a case has remembered.
    words: BTreeMap<String, String>,
}

impl Names {
    /// Gives a place or a Service its addresses.
    pub(super) fn set(&mut self, name: &str, addresses: impl IntoIterator<Item = IpAddr>) {
        self.addresses.insert(name.to_owned(), addresses.into_iter().collect());
    }

    /// Gives a backend a name.
    pub(super) fn remember(&mut self, name: &str, place: &str) {
        self.words.insert(name.to_owned(), place.to_owned());
    }

    /// The backend of a name.
    pub(super) fn remembered(&self, name: &str) -> Result<&str> {
        self.words.get(name).map(String::as_str).with_context(|| format!("no backend `{name}`"))
    }

    /// Addresses and ports that `text` stands for: `name:port` for all addresses of the name,
    /// `name.v4:port` and `name.v6:port` for those of one family, or an address and port.
    pub(super) fn destinations(&self, text: &str) -> Result<Vec<SocketAddr>> {
        if let Ok(address) = text.parse() {
            return Ok(vec![address]);
        }
        let (name, port) = text.rsplit_once(':').with_context(|| format!("no port: {text}"))?;
        let port = port.parse().with_context(|| format!("no port: {text}"))?;
        Ok(self.addresses(name)?.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
    }

    /// Addresses of a name, with `.v4` or `.v6` those of one family.
    fn addresses(&self, name: &str) -> Result<Vec<IpAddr>> {
        let (name, family) = match name.rsplit_once('.') {
            Some((name, "v4")) => (name, Some(Family::V4)),
            Some((name, "v6")) => (name, Some(Family::V6)),
            _ => (name, None),
        };
        let known = match self.addresses.get(name) {
            Some(known) => known.clone(),
            None => fixed(name).with_context(|| format!("nothing is called `{name}`"))?,
        };
        let wanted = |ip: &IpAddr| family.is_none_or(|family| Family::of(*ip) == family);
        let found: Vec<IpAddr> = known.into_iter().filter(wanted).collect();
        if found.is_empty() {
            bail!("`{name}` has no such address");
        }
        Ok(found)
    }

    /// Replaces `${name.v4}` by an address, `${name}` by a backend that was remembered, `${now}` by the
    /// time.
    pub(super) fn fill_in(&self, text: &str) -> Result<String> {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}').context("`${` without `}`")?;
            filled += before;
            match self.words.get(name) {
                Some(word) => filled += word,
                None if name == NOW => filled += &Timestamp::now().to_string(),
                None => match self.addresses(name)?.as_slice() {
                    [address] => filled += &address.to_string(),
                    _ => bail!("`{name}` has more addresses than one: write .v4 or .v6"),
                },
            }
            rest = after;
        }
        Ok(filled + rest)
    }

    /// [`Self::fill_in`] for every text of an object.
    pub(super) fn fill_in_all(&self, value: &mut Value) -> Result<()> {
        match value {
            Value::String(text) => *text = self.fill_in(text)?,
            Value::Array(items) => {
                items.iter_mut().try_for_each(|item| self.fill_in_all(item))?;
            }
            Value::Object(fields) => {
                fields.values_mut().try_for_each(|field| self.fill_in_all(field))?;
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        Ok(())
    }
}

/// Names that every case knows: `loopback`, and `vip.N` for 203.0.113.N and 2001:db8:113::N, which
/// the router sends to n1.
fn fixed(name: &str) -> Option<Vec<IpAddr>> {
    if name == "loopback" {
        return Some(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let number = name.strip_prefix("vip.")?;
    let both = [format!("203.0.113.{number}"), format!("2001:db8:113::{number}")];
    both.iter().map(|text| text.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let mut names = Names::default();
        names.set("n1", ["172.18.0.11".parse().unwrap(), "fd00:18::11".parse().unwrap()]);
        names.remember("first", "n1/a");
        names
    }

    #[test]
    fn a_name_stands_for_both_families_or_for_one() {
        let to = |text: &str| {
            let found = names().destinations(text).unwrap();
            found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(to("n1:80"), "172.18.0.11:80 [fd00:18::11]:80");
        assert_eq!(to("n1.v6:80"), "[fd00:18::11]:80");
        assert_eq!(to("vip.7.v4:80"), "203.0.113.7:80");
        assert_eq!(to("loopback:80"), "127.0.0.1:80 [::1]:80");
        assert_eq!(to("192.0.2.1:80"), "192.0.2.1:80");
        assert!(names().destinations("n9:80").is_err());
    }

    #[test]
    fn texts_are_filled_in() {
        assert_eq!(names().fill_in("${first} at ${n1.v4}").unwrap(), "n1/a at 172.18.0.11");
        assert!(names().fill_in("${now}").unwrap().parse::<Timestamp>().is_ok());
        assert!(names().fill_in("${n1}").is_err());
        assert!(names().fill_in("${n9.v4}").is_err());
    }
}
