//! Where a captured connection meant to go: `SO_ORIGINAL_DST`, for IPv4, IPv6 and IPv4-mapped sockets.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use socket2::SockRef;
use tokio::net::TcpStream;

use crate::addrs::OriginalDst;

/// The connection came to the listener by itself instead of being redirected: relaying it would be a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection was not redirected here")]
pub struct NotRedirected;

/// The destination that the client asked for before the redirect.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] carrying [`NotRedirected`] when the connection was not redirected: conntrack knows
/// nothing of it (ENOENT), or its destination is the listener's own address. Anything else is the system's error.
pub fn original_dst(stream: &TcpStream) -> io::Result<OriginalDst> {
    let socket = SockRef::from(stream);
    let local = stream.local_addr()?;
    let original = match local.ip().to_canonical() {
        IpAddr::V4(_) => socket.original_dst_v4(),
        IpAddr::V6(_) => socket.original_dst_v6(),
    };
    let original = match original {
        Ok(address) => address.as_socket().ok_or_else(not_redirected)?,
        // ENOENT: no conntrack entry. ENOPROTOOPT: conntrack is not even loaded, so nothing redirects.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOPROTOOPT)) => {
            return Err(not_redirected());
        }
        Err(error) => return Err(error),
    };
    accepted(original, local).ok_or_else(not_redirected)
}

fn accepted(original: SocketAddr, local: SocketAddr) -> Option<OriginalDst> {
    let original = OriginalDst::new(original);
    (original != OriginalDst::new(local) && original.port() != 0).then_some(original)
}

fn not_redirected() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, NotRedirected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_listeners_own_address_is_no_destination_in_any_spelling() {
        let own = address("127.0.0.1:15001");
        assert_eq!(accepted(own, own), None);
        assert_eq!(accepted(own, address("[::ffff:127.0.0.1]:15001")), None);
        assert_eq!(accepted(address("[::1]:15001"), address("[::1]:15001")), None);
        let elsewhere = address("192.0.2.1:443");
        assert_eq!(accepted(elsewhere, own), Some(OriginalDst::new(elsewhere)));
    }

    #[tokio::test]
    async fn a_direct_connection_is_refused_over_both_families() {
        for listen in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let listener = tokio::net::TcpListener::bind(listen).await.expect("binds");
            let mut target = listener.local_addr().expect("bound");
            if target.ip().is_unspecified() {
                target.set_ip(IpAddr::from([127, 0, 0, 1]));
            }
            let client = match target {
                SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4(),
                SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6(),
            };
            let connect = client.expect("a socket").connect(target);
            let (dialled, accepted) = tokio::join!(connect, listener.accept());
            let (stream, _) = accepted.expect("accepts");
            let error = original_dst(&stream).expect_err("not redirected");
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            assert!(error.get_ref().is_some_and(|e| e.is::<NotRedirected>()));
            drop(dialled);
        }
    }
}
