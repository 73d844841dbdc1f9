//! Network namespaces, as BPF programs tell them apart.

use std::{io, net::UdpSocket};

use nix::sys::socket::getsockopt;

nix::sockopt_impl!(
    /// SO_NETNS_COOKIE.
    NetnsCookie,
    GetOnly,
    libc::SOL_SOCKET,
    libc::SO_NETNS_COOKIE,
    u64
);

/// Cookie of the current network namespace: what `bpf_get_netns_cookie` returns to the programs.
/// 0 on kernels before 5.14, which do not tell (commit e8b9eab99232); the programs then compare
/// with the initial namespace.
///
/// # Errors
/// No socket could be made.
pub fn cookie() -> io::Result<u64> {
    let socket = UdpSocket::bind("0.0.0.0:0").or_else(|_| UdpSocket::bind("[::]:0"))?;
    Ok(getsockopt(&socket, NetnsCookie).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_cookie_of_a_namespace_stays_the_same() {
        assert_eq!(super::cookie().unwrap(), super::cookie().unwrap());
    }
}
