//! The programs that people run on Services: CoreDNS and glibc's resolver, nginx as an ingress
//! proxy, HTTP/2 with long-lived connections, and rolling updates under all of them.

mod dns;
mod http2;
mod load;
mod nginx;
mod peer;
mod rollout;
mod updates;
