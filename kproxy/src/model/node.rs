//! The node that kproxy runs on.

/// What the plan wants to know of the own Node object (NODE-01, NODE-04).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Node {
    /// Zone of the node; `None` without the label or with an empty one: no same-zone routing.
    pub zone: Option<String>,
}
