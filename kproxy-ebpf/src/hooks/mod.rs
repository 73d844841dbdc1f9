//! Entry points: the programs by the hook that they are attached to.

mod adopt;
mod egress;
mod ingress;
mod inject;
mod node;
mod release;
mod socket;
mod sweep;
mod tc;
mod udp_socket;
