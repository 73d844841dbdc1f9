//! ServiceCIDRs.

use super::{ObjectProblems, parse_cidr, service_cidr_key};
use crate::model::ServiceCidr;
use crate::source::{Parsed, Verdict, objects};

/// Converts a ServiceCIDR. One that is being deleted still counts: its addresses are in use until
/// it is gone.
pub(crate) fn service_cidr(object: &objects::ServiceCIDR) -> Parsed<ServiceCidr> {
    let key = service_cidr_key(&object.metadata);
    let mut problems = ObjectProblems::new(format!("ServiceCIDR {key}"));
    let mut ranges = Vec::new();
    let spec = object.spec.as_ref();
    for text in spec.and_then(|spec| spec.cidrs.as_deref()).unwrap_or_default() {
        match parse_cidr(text) {
            // A range of everything would cut the node off from everything.
            Some(range) if range.prefix_len() == 0 => problems.add(
                format!("cidr {text} holds every address, it is left out"),
                "write the range that ClusterIPs come from",
            ),
            Some(range) => ranges.push(range),
            None => problems.add(
                format!("cidr {text:?} is no range, it is left out"),
                "write address/length, e.g. 10.96.0.0/16",
            ),
        }
    }
    let verdict = Verdict::Use(ServiceCidr { name: key.clone(), ranges });
    Parsed { key, verdict, problems: problems.list }
}
