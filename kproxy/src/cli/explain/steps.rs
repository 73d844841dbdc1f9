//! The facts in words.

use ipnet::IpNet;
use kproxy_common::drop_reason::DropReason;
use serde::Serialize;

use crate::cli::dump::columns::{duration, endpoint};
use crate::dataplane::explain::{
    Access, Affinity, Explanation, Found, Hook, Question, SeenAs, Sender, Standing, Verdict, View,
    WhyHere,
};
use crate::dataplane::read::{kind_name, scope_name};
use crate::dataplane::simulate::{Done, Simulated};
use crate::plan::{FrontendKind, Protocol, Scope};

/// One step, in words.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Step {
    /// What it is about, in one word.
    pub step: &'static str,
    /// What is the case.
    pub text: String,
}

/// The steps up to the end of the connection or its backend.
pub(super) fn steps(view: &View, question: &Question, told: &Explanation) -> Vec<Step> {
    let mut steps = vec![Step { step: "frontend", text: frontend(question, told) }];
    let mut add = |step, text| steps.push(Step { step, text });
    if told.verdict != Verdict::LeftAlone {
        add("decided", format!("{}{}", decided(question, told.hook), why_here(told.why_here)));
    }
    if let Some(text) = sources(&told.access) {
        add("sources", text);
    }
    let let_in = told.reason != Some(DropReason::SourceNotAllowed);
    if let Some(set) = told.set.as_ref().filter(|_| let_in && told.verdict != Verdict::LeftAlone) {
        add("endpoints", endpoints(told, set.scope, set.backends));
        if set.backends > 0 {
            let affinity = told
                .affinity
                .as_ref()
                .map_or_else(|| "no session affinity".to_owned(), |of| affinity(of, told.hook));
            add("picks", format!("{}; {affinity}", set.algorithm.name()));
        }
    }
    if matches!(told.verdict, Verdict::Answered | Verdict::Depends) {
        add("path", path(view, told));
    }
    add("outcome", outcome(view, question, told));
    steps
}

fn frontend(question: &Question, told: &Explanation) -> String {
    let at = endpoint(question.to.ip(), question.to.port());
    let to = format!("{at}/{}", question.protocol.name());
    match &told.found {
        Found::Frontend(found) => {
            let kinds: Vec<_> = found.kinds.iter().map(|kind| kind_name(*kind)).collect();
            let kinds = kinds.join(" and ");
            if found.addr.is_unspecified() {
                format!("{kinds} {}, on every address of this node", found.port)
            } else {
                format!("{kinds} {to}")
            }
        }
        Found::UnknownPort => {
            format!(
                "{} is a ClusterIP without a port {}/{}",
                question.to.ip(),
                question.to.port(),
                question.protocol.name()
            )
        }
        Found::FreeServiceAddress => {
            format!("{} is in the range of ClusterIPs, and no Service has it", question.to.ip())
        }
        Found::OwnLoopback => {
            "loopback and unspecified addresses are the sender's own: nothing of it comes here"
                .to_owned()
        }
        Found::NodeAddress => format!(
            "{} is an address of this node, and {}/{} is no NodePort",
            question.to.ip(),
            question.to.port(),
            question.protocol.name()
        ),
        Found::Nothing => format!("{to} is no frontend"),
    }
}

fn decided(question: &Question, hook: Hook) -> &'static str {
    match hook {
        Hook::Connect if question.protocol == Protocol::Udp => {
            "by the socket when it connects or sends (kp_connect4/6, kp_sendmsg4/6), before there is a packet"
        }
        Hook::Connect => "by the socket when it connects (kp_connect4/6), before there is a packet",
        Hook::PodLink => "by its packets, at this node's end of the pod's link (kp_pod_ingress)",
        Hook::Uplink => "by its packets, where they come in by an uplink (kp_ingress)",
        Hook::Leaving => {
            "by its packets, where they leave by an uplink (kp_egress) or stay on the node (kp_node_egress at lo)"
        }
        Hook::Unseen => {
            "by its packets, where they leave the node by an uplink (kp_egress): no pod-facing port has a program"
        }
    }
}

const fn why_here(why: WhyHere) -> &'static str {
    match why {
        WhyHere::Usual => "",
        WhyHere::Sctp => "; no hook for sockets sees SCTP",
        WhyHere::SocketsUnused => "; sockets are left alone (--socket-lb none)",
        WhyHere::HostSocketsOnly => "; sockets of pods are left alone (--socket-lb host)",
        WhyHere::OptedOut => {
            "; the pod's sockets are left alone: it is opted out, or it is not known yet whether it is"
        }
        WhyHere::NotAttached => "; the programs for sockets are not attached (`kproxy status`)",
        WhyHere::LoopbackSource => "; the socket is bound to a loopback address",
        WhyHere::NotAllowed => "; the source ranges do not let the socket in as it is",
        WhyHere::NoBackend => "; there is nothing that the socket could be connected to",
    }
}

fn list(ranges: &[IpNet]) -> String {
    if ranges.is_empty() {
        return "no range at all".to_owned();
    }
    ranges.iter().map(IpNet::to_string).collect::<Vec<_>>().join(", ")
}

fn sources(access: &Access) -> Option<String> {
    Some(match access {
        Access::Open => return None,
        Access::LetIn { range: Some(range) } => format!("let in by {range}"),
        Access::LetIn { range: None } => "this node is let in".to_owned(),
        Access::Denied { ranges } | Access::Refused { ranges } => {
            format!("denied: the sender is in none of {}", list(ranges))
        }
        Access::Unknown { ranges } => {
            format!("let in if its address is in {}; ask again with --from ADDRESS", list(ranges))
        }
    })
}

fn endpoints(told: &Explanation, scope: Scope, count: u16) -> String {
    let is_cluster_ip =
        told.frontend().is_some_and(|found| found.kinds.contains(&FrontendKind::ClusterIp));
    let policy = match (is_cluster_ip, told.hook) {
        (true, _) => "internalTrafficPolicy",
        (false, Hook::Uplink) => "externalTrafficPolicy",
        (false, _) => "senders inside, whatever externalTrafficPolicy says",
    };
    let whose = match scope {
        Scope::Cluster => "of the cluster",
        Scope::Local => "on this node",
    };
    format!("{count} {whose}: policy {} ({policy})", scope_name(scope))
}

fn affinity(affinity: &Affinity, hook: Hook) -> String {
    let time = duration(affinity.seconds);
    let client = if hook == Hook::Connect { "network namespace" } else { "address" };
    let kept = match affinity.kept {
        Some(kept) if kept.counts => format!(
            "this client is held to {} for {} more",
            kept.backend,
            duration(kept.expires_in_seconds)
        ),
        Some(kept) => {
            format!("its last backend {} is no longer one: another is picked", kept.backend)
        }
        None if affinity.client_known => "nothing is kept for this client".to_owned(),
        None => "which client it is is not known (`kproxy dump affinity`)".to_owned(),
    };
    format!("session affinity of {time} by {client}: {kept}")
}

/// What is done to the packets of the connection (`flow/kind.rs` of the programs).
fn path(view: &View, told: &Explanation) -> String {
    let sees = |seen_as| told.may().any(|of| of.seen_as == Some(seen_as));
    let mut parts = Vec::new();
    match told.hook {
        Hook::Connect => {
            parts.push("the socket is connected to the endpoint itself: nothing is translated on the way".to_owned());
        }
        Hook::Leaving => parts.push(
            "both ends are changed where the packet leaves; the answer is changed back where it comes in".to_owned(),
        ),
        Hook::PodLink | Hook::Uplink | Hook::Unseen => {
            let back = if told.hook == Hook::Uplink { "kp_egress" } else { "kp_pod_egress" };
            if sees(SeenAs::Client) {
                parts.push(format!("the destination is changed, then the kernel routes; answers: {back}"));
            }
        }
    }
    if told.hook == Hook::Uplink && sees(SeenAs::Node) {
        let (first, count) = (view.config.snat_first, view.config.snat_count);
        parts.push(format!(
            "to another node: both ends are changed, source port {first}-{}, and it is sent on past the stack \
             (redirect)",
            first.saturating_add(count.saturating_sub(1))
        ));
    }
    if sees(SeenAs::Masquerade) {
        parts.push("marked, so that netfilter masquerades it (table inet kproxy)".to_owned());
    }
    if sees(SeenAs::Frontend) {
        parts.push("to the pod itself: sent back by its link at once (hairpin)".to_owned());
    }
    parts.join("; ")
}

fn outcome(view: &View, question: &Question, told: &Explanation) -> String {
    let number = told.may().count();
    let one_of = match number {
        1 => "goes to the one endpoint".to_owned(),
        _ => format!("goes to one of {number} endpoints"),
    };
    let outcome = match told.verdict {
        Verdict::Answered => one_of,
        Verdict::Depends => format!("{one_of} if let in, else it is dropped"),
        Verdict::Refused if told.hook == Hook::Connect && question.protocol == Protocol::Udp => {
            "refused: send fails with ECONNREFUSED; a UDP socket connects all the same, and what it sends is refused"
                .to_owned()
        }
        Verdict::Refused if told.hook == Hook::Connect => {
            "refused: the call fails with ECONNREFUSED at once".to_owned()
        }
        Verdict::Refused if question.protocol == Protocol::Tcp => "refused by a TCP reset".to_owned(),
        Verdict::Refused => "refused by an ICMP error (port unreachable)".to_owned(),
        Verdict::Dropped => "dropped without a word: the sender's call times out".to_owned(),
        Verdict::LeftAlone if told.frontend().is_some() => {
            "left alone: no program of kproxy's sees the sender".to_owned()
        }
        Verdict::LeftAlone => match (&told.found, question.from) {
            (Found::Nothing, Sender::Outside { .. }) if !view.uplinks.is_empty() => {
                "left alone by kproxy: it goes where routes lead".to_owned()
            }
            (Found::Nothing, _) => "left alone by kproxy: it goes where the sender's routes lead".to_owned(),
            _ => "left alone by kproxy: it is answered if a process listens there".to_owned(),
        },
    };
    match told.reason {
        Some(reason) => format!("{outcome} (counted as {})", reason.name()),
        None => outcome,
    }
}

/// What the programs did with a made packet.
pub(super) fn simulated(Simulated { program, done, agrees }: &Simulated) -> Step {
    let done = match done {
        Done::LeftAlone => "leaves it alone".to_owned(),
        Done::Dropped => "drops it".to_owned(),
        Done::Refused => "refuses it".to_owned(),
        Done::Sent(to) => format!("sends it to {to}"),
    };
    let verdict =
        if *agrees { "as explained" } else { "which is NOT what is explained: report a bug" };
    Step { step: "simulated", text: format!("{program} on a made packet {done}, {verdict}") }
}

/// What to do about it.
pub(super) fn advice(question: &Question, told: &Explanation) -> Vec<String> {
    let id = told.frontend().and_then(|found| found.service.as_ref());
    let slices = id.map(|id| {
        format!(
            "kubectl -n {} get endpointslices -l kubernetes.io/service-name={} -o yaml",
            id.namespace, id.name
        )
    });
    let slices = slices.unwrap_or_else(|| "kubectl get endpointslices".to_owned());
    let mut advice = Vec::new();
    match told.reason {
        Some(DropReason::NoBackend) => advice.push(format!(
            "No endpoint is ready, and none that terminates serves. Which there are, and why they are not ready, \
             only the API knows: `{slices}` (conditions), then `kubectl describe pod`; without any, the \
             Service's selector fits no pod."
        )),
        Some(DropReason::NoLocalBackend) => advice.push(
            "Policy Local and no endpoint on this node: run a pod here, dial a node that has one, or set the \
             policy to Cluster. A load balancer asks the healthCheckNodePort and leaves this node out."
                .to_owned(),
        ),
        Some(DropReason::SourceNotAllowed) => advice.push(
            "Add a range that holds the sender to loadBalancerSourceRanges, or dial another frontend of the \
             Service."
                .to_owned(),
        ),
        Some(DropReason::UnknownPort) => advice.push(
            "Look at the ports and protocols of the Service that has this ClusterIP.".to_owned(),
        ),
        Some(DropReason::FreeServiceAddress) => advice.push(
            "The sender may have kept the address of a Service that is gone: look up its name again."
                .to_owned(),
        ),
        Some(other) => advice.push(other.help().to_owned()),
        None => {}
    }
    let left_out = |standing| told.candidates.iter().any(|of| of.standing == standing);
    if left_out(Standing::HintsOrTerminating) || left_out(Standing::KeepsOnly) {
        advice.push(format!(
            "Whether hints or conditions leave an endpoint out, only the API knows: `{slices}`."
        ));
    }
    if told.why_here == WhyHere::NotAttached {
        advice.push("Restart kproxy: it attaches the programs for sockets again.".to_owned());
    }
    if question.protocol == Protocol::Udp && told.verdict == Verdict::Answered {
        advice.push(
            "A UDP socket or flow that is open already stays with its endpoint while that serves."
                .to_owned(),
        );
    }
    advice
}

/// Why an endpoint gets nothing, for people.
pub(super) const fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::May => "may get it",
        Standing::HeldElsewhere => "no: affinity",
        Standing::OtherNode => "no: policy Local",
        Standing::HintsOrTerminating => "no: hints, or terminating",
        Standing::KeepsOnly => "no: keeps what it has",
    }
}
