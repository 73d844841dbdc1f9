//! Where Services, EndpointSlices, ServiceCIDRs, the own Node and Pods that are opted out come from.
//!
//! Two sources speak the same [`Event`]s: [`kube`] watches an API server, [`manifests`] a folder of
//! YAML and JSON files. Both read what is needed of Kubernetes objects ([`objects`]) and turn it into
//! [`crate::model`] values in [`convert`]; what cannot be used becomes a
//! [`Problem`] beside the value.

pub(crate) mod convert;
pub(crate) mod kube;
pub(crate) mod manifests;
pub(crate) mod objects;

use k8s_openapi::jiff::Timestamp;

use crate::model::{
    Node, Pod, PodName, Problem, Service, ServiceCidr, ServiceCidrName, ServiceName, Slice,
    SliceName,
};

/// What a source tells the control loop.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Event {
    /// Services.
    Services(Update<Service>),
    /// EndpointSlices.
    Slices(Update<Slice>),
    /// ServiceCIDRs. Nobody waits for them: without any, no address counts as free.
    ServiceCidrs(Update<ServiceCidr>),
    /// Pods of the namespaces that are opted out of the socket path; none are told where there are no
    /// such namespaces.
    Pods(Update<Pod>),
    /// The own Node; `None` when there is no such object.
    Node(Option<Node>),
    /// Whether something of an origin has never been readable since the start: nobody knows which
    /// objects it holds, so none that a run before this one has left may be taken for gone.
    Unread {
        /// Any name that is the same each time.
        origin: String,
        /// It cannot be read.
        unread: bool,
    },
    /// The problems of one part of the source that belong to no single object (a manifest file, the
    /// API server). Replaces what this part said before; an empty list takes it back.
    Problems {
        /// Any name that is the same each time, e.g. `manifest web.yaml`.
        origin: String,
        /// What is wrong now.
        problems: Vec<Problem>,
    },
    /// Since when the source gives no answer, so that what it has told may be out of date; `None`: it
    /// answers.
    Stale(Option<Timestamp>),
}

/// A change to the objects of one kind.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Update<T: Object> {
    /// The complete list: everything not in it is gone.
    Reset(Vec<Parsed<T>>),
    /// One object is new or different.
    Apply(Parsed<T>),
    /// One object is gone.
    Delete(T::Key),
}

impl<T: Object> Update<T> {
    /// Changes the objects that it brings.
    pub(crate) fn edit(&mut self, change: impl Fn(&mut T)) {
        let parsed: &mut [Parsed<T>] = match self {
            Self::Reset(all) => all,
            Self::Apply(one) => std::slice::from_mut(one),
            Self::Delete(_) => &mut [],
        };
        for parsed in parsed {
            if let Verdict::Use(object) = &mut parsed.verdict {
                change(object);
            }
        }
    }
}

/// A kind of object with a name.
pub(crate) trait Object: Clone + PartialEq + std::fmt::Debug {
    /// Namespace and name.
    type Key: Clone + Ord + std::fmt::Debug + std::fmt::Display;
    /// The kind as Kubernetes writes it.
    const KIND: &'static str;
}

impl Object for Service {
    type Key = ServiceName;
    const KIND: &'static str = "Service";
}

impl Object for Slice {
    type Key = SliceName;
    const KIND: &'static str = "EndpointSlice";
}

impl Object for ServiceCidr {
    type Key = ServiceCidrName;
    const KIND: &'static str = "ServiceCIDR";
}

impl Object for Pod {
    type Key = PodName;
    const KIND: &'static str = "Pod";
}

/// An object as it was read.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Parsed<T: Object> {
    /// Namespace and name.
    pub key: T::Key,
    /// What to do with it.
    pub verdict: Verdict<T>,
    /// What is wrong with it; good parts are in the verdict all the same.
    pub problems: Vec<Problem>,
}

/// What became of an object.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Verdict<T> {
    /// Use it.
    Use(T),
    /// It is there and none of kproxy's (headless, ExternalName, another proxy's, nothing usable
    /// in it): as if it were gone.
    Ignore,
    /// It cannot be read at all: what it was before stays.
    Unreadable,
}

impl<T: Object> Parsed<T> {
    /// An object that cannot be read.
    pub(crate) fn unreadable(key: T::Key, error: &str) -> Self {
        let problem = Problem::new(
            format!("{} {key}", T::KIND),
            format!("cannot be read: {error}; what it was before, if anything, stays in force"),
            "mend the object",
        );
        Self { key, verdict: Verdict::Unreadable, problems: vec![problem] }
    }
}
