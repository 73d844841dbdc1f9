//! What the tables show: one plain struct a row, its columns and its JSON form.
//!
//! The JSON keys are promised in `docs/cli.md`: they may be added to, never renamed.

pub mod address;
pub mod backend;
pub mod counter;
pub mod flow;
pub mod frontend;
pub mod service;

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use super::render::table::Column;

/// A row of a table.
pub trait Row: Serialize + Sized + 'static {
    /// Heading of the table, and the word for its rows.
    const TITLE: &'static str;
    /// The columns, from left to right.
    const COLUMNS: &'static [Column<Self>];
}

/// A service port of one family.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct ServicePort {
    /// Namespace of the Service; empty when the maps hold no name.
    pub namespace: String,
    /// Name of the Service; empty when the maps hold no name.
    pub service: String,
    /// Name of the port; empty for the unnamed one.
    pub port_name: String,
    /// `TCP`, `UDP`, `SCTP`, or the IP protocol number in digits.
    pub protocol: String,
    /// `IPv4` or `IPv6`.
    pub family: &'static str,
    /// Number of the service port in the maps.
    pub service_port_id: u32,
}

impl ServicePort {
    /// `TCP/IPv4`
    pub fn kind(&self) -> String {
        format!("{}/{}", self.protocol, self.family)
    }
}

/// `namespace/name:port`
impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.service.is_empty() {
            return write!(f, "(no name, id {})", self.service_port_id);
        }
        write!(f, "{}/{}", self.namespace, self.service)?;
        if self.port_name.is_empty() { Ok(()) } else { write!(f, ":{}", self.port_name) }
    }
}

/// An address and a port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
pub struct Endpoint {
    /// Address.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
}

/// `10.96.0.10:53` or `[fd00:10:96::a]:53`
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::net::SocketAddr::new(self.address, self.port).fmt(f)
    }
}

/// Which of the two backend sets of a service port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Every usable endpoint.
    Cluster,
    /// Endpoints on this node.
    Local,
}

impl Scope {
    /// The word shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Local => "local",
        }
    }
}

/// What happens to new connections while a set is empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenEmpty {
    /// Refused at once.
    Refuse,
    /// Dropped.
    Drop,
}

impl WhenEmpty {
    /// The word shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Drop => "drop",
        }
    }
}

/// A number of backends, or what happens when there is none: `3`, `0 refuse`.
fn backends(count: u16, when_empty: WhenEmpty) -> String {
    match count {
        0 => format!("0 {}", when_empty.name()),
        count => count.to_string(),
    }
}

/// `45s`, `12m`, `5h`, `3d`: the largest unit that is not zero.
fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// `999 B`, `1.2 GiB`: at most three digits and a unit.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1_000 {
        return format!("{count} B");
    }
    let mut value = count as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 999.5 {
            break;
        }
        value /= 1_024.0;
        unit = next;
    }
    if value < 9.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_short() {
        assert_eq!([0, 119, 120, 86_399, 86_400 * 3].map(duration), ["0s", "119s", "2m", "23h", "3d"]);
        let cases = [999, 1_000, 10_200, 1 << 20, 1_023 << 20, u64::MAX];
        assert_eq!(
            cases.map(bytes),
            ["999 B", "1.0 KiB", "10 KiB", "1.0 MiB", "1.0 GiB", "16 EiB"]
        );
    }
}
