//! kproxy in clusters of network namespaces: real sockets, real packets, whole life cycle.
//! Needs root and a built `kproxy` (`cargo xtask test` sees to both).

mod affinity;
mod algorithms;
mod api;
mod asked;
mod check;
mod common;
mod container;
mod control;
mod drop_in;
mod explain;
mod fragments;
mod health;
mod lifecycle;
mod memory;
mod metrics;
mod node;
mod none;
mod opt_out;
mod ports;
mod ranges;
mod repair;
mod rights;
mod sctp;
mod sockets;
mod start;
mod takeover;
mod trace;
mod udp;
mod uplink;
mod verify;
