//! Devices, and what the node does with packets.

use super::finding::{Finding, Outcome};
use crate::daemon::Settings;
use crate::node::{Device, NodeState, Served, forwarding, nft, watch, xfrm};

/// Looks. The node as it is now, if that can be told.
pub(super) fn look(settings: &Settings) -> (Option<NodeState>, Vec<Finding>) {
    let mut all = Vec::new();
    let node = match state(settings) {
        Ok(node) => node,
        Err(error) => return (None, vec![Finding::unseen("devices", &*error)]),
    };
    all.extend(devices(&node));
    all.extend(forwarding(&node));
    all.extend(policy());
    all.push(ipsec());
    (Some(node), all)
}

fn state(settings: &Settings) -> Result<NodeState, Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let followed = watch::follow(settings.devices.clone(), Served::default());
    Ok(runtime.block_on(followed)?.borrow().clone())
}

fn devices(node: &NodeState) -> Vec<Finding> {
    let names = |devices: &[Device]| {
        let names: Vec<_> = devices.iter().map(|device| device.name.as_str()).collect();
        names.join(", ")
    };
    let mut all = vec![if node.devices.is_empty() {
        let found = "no device leads out of this node: NodePorts answer once there is one";
        Finding::warning(
            "devices",
            found,
            "give one an address or a default route, or name it with --devices",
        )
    } else {
        Finding::ok("devices", names(&node.devices))
    }];
    all.extend(
        node.problems
            .iter()
            .map(|problem| Finding::of_problem("devices", Outcome::Warning, problem.clone())),
    );
    all.push(Finding::ok(
        "devices of pods",
        match node.pods.len() {
            0 => "none yet".to_owned(),
            1..=4 => names(&node.pods),
            count => format!("{} and {} more", names(&node.pods[..3]), count - 3),
        },
    ));
    all
}

fn forwarding(node: &NodeState) -> Vec<Finding> {
    const CHECK: &str = "forwarding";
    let problems = forwarding::problems(node.families());
    if problems.is_empty() {
        return vec![Finding::ok(CHECK, "the node passes packets on")];
    }
    // What has no pods has nobody to pass packets on to.
    let outcome = if node.pods.is_empty() { Outcome::Warning } else { Outcome::Failure };
    problems.into_iter().map(|problem| Finding::of_problem(CHECK, outcome, problem)).collect()
}

/// `None`: there is no nft to ask.
fn policy() -> Option<Finding> {
    const CHECK: &str = "FORWARD policy";
    let chains = nft::list_chains().ok()?;
    let dropping = forwarding::dropping_chains(&chains);
    if dropping.is_empty() {
        return Some(Finding::ok(CHECK, "accept"));
    }
    let found = format!(
        "{} drops what no rule accepts, and kproxy adds none: clients outside reach pods of this node only if another \
         rule lets them",
        dropping.join(", ")
    );
    let remedy = "see that the CNI accepts traffic to and from its pods, as Flannel and Calico do: `nft list ruleset`, \
                  `iptables -S FORWARD`; docs/networks.md says more";
    Some(Finding::warning(CHECK, found, remedy))
}

fn ipsec() -> Finding {
    const CHECK: &str = "IPsec";
    match xfrm::encrypting_policies() {
        Ok(count) => match xfrm::problem(count) {
            None => Finding::ok(CHECK, "no policy encrypts what passes an uplink"),
            Some(problem) => Finding::warning(CHECK, problem.what, problem.remedy),
        },
        Err(error) => Finding::unseen(CHECK, &error),
    }
}
