//! Packet programs on single packets: packet in, verdict and packet out, counters moved.
//! Needs root (BPF_PROG_TEST_RUN); sends nothing, the routes are those of own namespaces.

mod absence;
mod adopt;
mod affinity;
mod algorithms;
mod budgets;
mod conntrack;
mod drops;
mod early;
mod flows;
mod harness;
mod leaving;
mod model;
mod node;
mod parts;
mod ports;
mod rows;
mod sctp;
mod snat;
mod sources;
mod stack;
mod tables;
mod trace;
