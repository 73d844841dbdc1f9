//! Unsafe: one getsockopt call that nix does not wrap.
//!
//! The identity of the network namespace that the daemon runs in.

use std::{mem::size_of, os::fd::AsRawFd as _};

/// Cookie of the current network namespace (SO_NETNS_COOKIE: kernel 5.14, commit e8b9eab99232).
/// 0 where the kernel cannot tell; the programs take that for the initial namespace.
pub fn cookie() -> std::io::Result<u64> {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
    let mut cookie = 0u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and `cookie` and `len` are live for the call and sized alike.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if result == 0 {
        return Ok(cookie);
    }
    let error = std::io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ENOPROTOOPT) { Ok(0) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_namespace_has_one_identity() {
        assert_eq!(super::cookie().unwrap(), super::cookie().unwrap());
    }
}
