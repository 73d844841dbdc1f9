//! Why a packet or a call was refused or dropped.

use crate::pod::Numbers;

/// Reason of a refusal or a drop. The number is stored in maps: never reuse one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum DropReason {
    /// Refused: the service has no usable endpoint anywhere (VER-01).
    NoBackend = 1,
    /// Dropped: a Local traffic policy and no endpoint on this node (VER-04, VER-07).
    NoLocalBackend = 2,
    /// Refused: a known ClusterIP, but no service port of this number and protocol (VER-16).
    UnknownPort = 3,
    /// Dropped: the flow table is full.
    FlowTableFull = 4,
    /// Dropped: a header could not be rewritten (the kernel refused the write).
    RewriteFailed = 6,
    /// Dropped: the maps contradict each other (a run of slots that does not exist).
    BadMap = 7,
    /// Dropped: every source port tried towards the backend belongs to a live connection.
    NoSourcePort = 8,
    /// Dropped: no route to the backend, or to the client of an answer.
    NoRoute = 9,
    /// Dropped: more than [`REFUSALS_A_SECOND`] refusals; the client hears nothing.
    RefusalLimit = 10,
    /// Dropped: the first packets from pods whose sockets nobody sees, until the programs that
    /// translate the answers are attached.
    AnswersNotReady = 11,
    /// Lost: a fragment that came before its packet's first one, and too many wait already.
    FragmentLimit = 12,
    /// Dropped: a fragment for a ClusterIP whose first one was refused or did not come.
    FragmentAlone = 13,
    /// Refused: TCP for a service address, of a connection that this node does not know.
    NoFlow = 14,
    /// Dropped: an address of a Service range that no Service has (VER-16).
    FreeServiceAddress = 20,
    /// Dropped: a load-balancer address that is not open to this source (LBR-02).
    SourceNotAllowed = 21,
}

/// Resets and ICMP errors that each CPU sends in a second, so that a flood is not answered in kind.
pub const REFUSALS_A_SECOND: u32 = 1000;

impl DropReason {
    /// Every reason, in the order of its number.
    pub const ALL: [Self; 15] = [
        Self::NoBackend,
        Self::NoLocalBackend,
        Self::UnknownPort,
        Self::FlowTableFull,
        Self::RewriteFailed,
        Self::BadMap,
        Self::NoSourcePort,
        Self::NoRoute,
        Self::RefusalLimit,
        Self::AnswersNotReady,
        Self::FragmentLimit,
        Self::FragmentAlone,
        Self::NoFlow,
        Self::FreeServiceAddress,
        Self::SourceNotAllowed,
    ];

    /// From the stored number; `None` for one that this version does not know.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| *reason as u32 == number)
    }

    /// The word used by the CLI, metrics and docs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoBackend => "no-backend",
            Self::NoLocalBackend => "no-local-backend",
            Self::UnknownPort => "unknown-port",
            Self::FlowTableFull => "flow-table-full",
            Self::RewriteFailed => "rewrite-failed",
            Self::BadMap => "bad-map",
            Self::NoSourcePort => "no-source-port",
            Self::NoRoute => "no-route",
            Self::RefusalLimit => "refusal-limit",
            Self::AnswersNotReady => "answers-not-ready",
            Self::FragmentLimit => "fragment-limit",
            Self::FragmentAlone => "fragment-alone",
            Self::NoFlow => "no-flow",
            Self::FreeServiceAddress => "free-service-address",
            Self::SourceNotAllowed => "source-not-allowed",
        }
    }

    /// One sentence: what happened and what to look at.
    pub const fn help(self) -> &'static str {
        match self {
            Self::NoBackend => {
                "refused: the Service has no ready endpoint; look at its EndpointSlices and pods"
            }
            Self::NoLocalBackend => "dropped: traffic policy Local and no endpoint on this node",
            Self::UnknownPort => {
                "refused: the ClusterIP exists, but the Service has no such port and protocol"
            }
            Self::FlowTableFull => {
                "dropped: the flow table is full; raise --max-flows or look for a flood"
            }
            Self::RewriteFailed => "dropped: the kernel refused to rewrite a header; report a bug",
            Self::BadMap => "dropped: the maps contradict each other; restart kproxy, report a bug",
            Self::NoSourcePort => {
                "dropped: this node has no source port left for connections to the backend; widen \
                 --snat-ports or spread the clients over more nodes and backends"
            }
            Self::NoRoute => {
                "dropped: no route to the backend or back to the client (`ip route get ADDRESS`), \
                 or forwarding is off (net.ipv4.ip_forward, net.ipv6.conf.all.forwarding)"
            }
            Self::RefusalLimit => {
                "dropped: refused, but the client was not told: more than 1000 refusals a second"
            }
            Self::AnswersNotReady => {
                "dropped: the first packets of a pod whose sockets nobody sees, until the programs \
                 for its answers are attached; when it goes on, look whether kproxy runs"
            }
            Self::FragmentLimit => {
                "lost: a fragment that came before the first one of its packet, and too many wait \
                 already; look for a flood of fragments, and whether the daemon runs"
            }
            Self::FragmentAlone => {
                "dropped: a fragment for a ClusterIP whose first one was refused or did not come \
                 in time"
            }
            Self::NoFlow => {
                "refused: a connection to a Service's address that this node does not know; look \
                 whether the address has moved here from another node"
            }
            Self::FreeServiceAddress => {
                "dropped: an address of a ServiceCIDR that no Service has; look who dials it"
            }
            Self::SourceNotAllowed => {
                "dropped: loadBalancerSourceRanges do not hold the client, or hold only some of \
                 the pods and the client is a pod"
            }
        }
    }
}

/// All reasons.
pub(crate) const NUMBERS: Numbers = Numbers {
    name: "DropReason",
    values: &{
        let mut values = [("", 0); DropReason::ALL.len()];
        let mut i = 0;
        while i < values.len() {
            values[i] = (DropReason::ALL[i].name(), DropReason::ALL[i] as u64);
            i += 1;
        }
        values
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_found_again() {
        for (i, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(DropReason::from_number(reason as u32), Some(reason));
            assert!(DropReason::ALL[i + 1..].iter().all(|other| other.name() != reason.name()));
        }
        assert_eq!(DropReason::from_number(0), None);
    }
}
