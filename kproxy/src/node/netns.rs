//! Unsafe: one getsockopt call that nix does not wrap.
//!
//! The identity of network namespaces.

use std::{mem::size_of, os::fd::AsRawFd as _};

use socket2::{Domain, Socket, Type};

/// Cookie of the calling thread's network namespace (SO_NETNS_COOKIE: kernel 5.14, commit e8b9eab99232).
/// 0 where the kernel cannot tell; the programs take that for the initial namespace.
pub(crate) fn cookie() -> std::io::Result<u64> {
    // Bound to nothing: a namespace that has just been made has no address, not even on loopback.
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
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
