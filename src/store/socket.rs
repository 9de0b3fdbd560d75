//! `TCP_NODELAY` on the sockets of a database's connections, which sqlx 0.9.0 leaves as they are
//! (<https://github.com/launchbadge/sqlx/issues/4335>; mended upstream, not released).
//!
//! Without it the end of a request that takes more than one segment waits until the part before is acknowledged, which the
//! other host puts off for 40 ms: a batch of 80 KiB took 49 ms in place of 4. A connection does not give its socket away, so
//! it is looked for among the open ones of the process, by the port that it leads to.
#![expect(unsafe_code, reason = "a descriptor known by its number; see the module's text")]

use std::os::fd::{BorrowedFd, RawFd};

use socket2::SockRef;

/// Where the numbers of the process's open descriptors are listed.
const OPEN: &str = if cfg!(target_os = "linux") { "/proc/self/fd" } else { "/dev/fd" };

/// Has every connection to a port send what it has at once. Where descriptors cannot be listed, all stays as it is.
pub(super) fn send_at_once(port: u16) {
    for number in open() {
        // SAFETY: the number is of a descriptor that was open a moment ago, and is neither kept nor closed here. One that
        // was closed meanwhile is refused by the system; one whose number went to another socket gets the option only if
        // that leads to the same port.
        let socket = unsafe { BorrowedFd::borrow_raw(number) };
        let socket = SockRef::from(&socket);
        let leads_there = socket.peer_addr().is_ok_and(|peer| peer.as_socket().is_some_and(|at| at.port() == port));
        if leads_there {
            // Refused, the connection sends late, as it did.
            socket.set_tcp_nodelay(true).ok();
        }
    }
}

fn open() -> Vec<RawFd> {
    let Ok(listed) = std::fs::read_dir(OPEN) else { return Vec::new() };
    listed.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn only_connections_to_the_port_send_at_once() {
        let [here, elsewhere] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [ours, other] = [&here, &elsewhere].map(|to| TcpStream::connect(to.local_addr().unwrap()).unwrap());
        send_at_once(here.local_addr().unwrap().port());
        assert!(ours.nodelay().unwrap());
        assert!(!other.nodelay().unwrap());
    }
}
