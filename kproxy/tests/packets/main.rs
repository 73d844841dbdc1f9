//! Packet programs on single packets: packet in, verdict and packet out, counters moved.
//! Needs root (BPF_PROG_TEST_RUN); touches no network.

mod affinity;
mod harness;
mod rows;
mod sources;
