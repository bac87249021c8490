//! Binding what the sidecar listens on: loopback for redirected traffic, all addresses for probes and scrapes.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    path::PathBuf,
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::owner;

/// Connections that may wait to be accepted; the kernel caps it at net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// Why a listener is not there.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else listens there.
    #[error("{what}: {address} is taken by another process; stop it or change `{field}`")]
    Taken {
        /// What was to listen.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// The configuration's field.
        field: &'static str,
    },
    /// The system refuses.
    #[error("{what}: can't listen on {address}: {source}; change `{field}`")]
    Refused {
        /// What was to listen.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// The configuration's field.
        field: &'static str,
        /// The system's words.
        source: io::Error,
    },
    /// The admin socket can't be made.
    #[error("admin socket {path}: {source}{}; change `admin.socket`", owner::told(path, source))]
    Admin {
        /// Where.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
}

/// Something that listens, as errors speak of it.
#[derive(Clone, Copy, Debug)]
pub struct Purpose {
    /// In words.
    pub what: &'static str,
    /// The configuration's field.
    pub field: &'static str,
}

/// TCP listeners on 127.0.0.1 and ::1, `each` of them per family, and their port (which `port` 0 leaves to the system).
///
/// Where the system has no IPv6 there are those of IPv4 alone.
///
/// # Errors
/// The port is taken, or the system refuses.
pub fn loopback_tcp(
    purpose: Purpose,
    port: u16,
    each: usize,
) -> Result<(Vec<TcpListener>, u16), ListenError> {
    pairs(purpose, port, each, bind_tcp, |listener| listener.local_addr())
}

/// TCP listeners on every address of both families, `each` of them, and their port (which `port` 0 leaves to the system).
///
/// Where the system has no IPv6 they are of IPv4 alone.
///
/// # Errors
/// The port is taken, or the system refuses.
pub fn every_tcp(purpose: Purpose, port: u16, each: usize) -> Result<(Vec<TcpListener>, u16), ListenError> {
    // `[::]` takes IPv4 too.
    let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let local: fn(&TcpListener) -> io::Result<SocketAddr> = |listener| listener.local_addr();
    match several(v6, each, bind_tcp, local) {
        Err(error) if absent(&error) => {
            several(v4, each, bind_tcp, local).map_err(|error| purpose.error(v4, error))
        }
        bound => bound.map_err(|error| purpose.error(v6, error)),
    }
}

/// As [`loopback_tcp`], for datagrams.
///
/// # Errors
/// The port is taken, or the system refuses.
pub fn loopback_udp(purpose: Purpose, port: u16, each: usize) -> Result<(Vec<UdpSocket>, u16), ListenError> {
    pairs(purpose, port, each, bind_udp, |socket| socket.local_addr())
}

/// Datagram sockets and TCP listeners on one and the same port.
///
/// # Errors
/// As [`loopback_tcp`].
pub fn loopback_both(purpose: Purpose, port: u16, each: usize) -> Result<Both, ListenError> {
    let mut tries = if port == 0 { TRIES } else { 1 };
    loop {
        tries -= 1;
        let (datagrams, chosen) = loopback_udp(purpose, port, each)?;
        match loopback_tcp(purpose, chosen, each) {
            Err(ListenError::Taken { .. }) if tries > 0 => {}
            bound => return bound.map(|(listeners, _)| (datagrams, listeners, chosen)),
        }
    }
}

/// One TCP listener.
///
/// # Errors
/// The address is taken, or the system refuses.
pub fn tcp(purpose: Purpose, address: SocketAddr) -> Result<TcpListener, ListenError> {
    bind_tcp(address, false).map_err(|error| purpose.error(address, error))
}

impl Purpose {
    fn error(self, address: SocketAddr, source: io::Error) -> ListenError {
        let Purpose { what, field } = self;
        match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::Taken { what, address, field },
            _ => ListenError::Refused { what, address, field, source },
        }
    }
}

type Both = (Vec<UdpSocket>, Vec<TcpListener>, u16);
type Bound<T> = Result<(Vec<T>, u16), ListenError>;

/// A port that was free in one family may be taken in the other: with port 0, try this many.
const TRIES: usize = 16;

fn pairs<T>(
    purpose: Purpose,
    port: u16,
    each: usize,
    bind: fn(SocketAddr, bool) -> io::Result<T>,
    local: fn(&T) -> io::Result<SocketAddr>,
) -> Bound<T> {
    let mut tries = if port == 0 { TRIES } else { 1 };
    loop {
        tries -= 1;
        match pair(purpose, port, each, bind, local) {
            Err(ListenError::Taken { .. }) if tries > 0 => {}
            bound => return bound,
        }
    }
}

fn pair<T>(
    purpose: Purpose,
    port: u16,
    each: usize,
    bind: fn(SocketAddr, bool) -> io::Result<T>,
    local: fn(&T) -> io::Result<SocketAddr>,
) -> Bound<T> {
    let mut bound = Vec::new();
    let mut port = port;
    for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        let address = SocketAddr::new(ip, port);
        match several(address, each, bind, local) {
            Ok((sockets, chosen)) => {
                port = chosen;
                bound.extend(sockets);
            }
            Err(error) if ip.is_ipv6() && absent(&error) => {
                tracing::warn!("{}: this system has no IPv6 loopback; IPv4 alone is served", purpose.what);
            }
            Err(error) => return Err(purpose.error(address, error)),
        }
    }
    Ok((bound, port))
}

/// Sockets that share an address, and its port.
fn several<T>(
    address: SocketAddr,
    each: usize,
    bind: fn(SocketAddr, bool) -> io::Result<T>,
    local: fn(&T) -> io::Result<SocketAddr>,
) -> io::Result<(Vec<T>, u16)> {
    // Sockets that share a port don't notice another process that shares it too: look alone first.
    let address = bind(address, false).and_then(|socket| local(&socket))?;
    let bound = (0..each.max(1)).map(|_| bind(address, true)).collect::<io::Result<_>>()?;
    Ok((bound, address.port()))
}

fn absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

fn bind_tcp(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = socket(address, Type::STREAM, Protocol::TCP)?;
    // Only past the TIME_WAIT of earlier connections; a listener there still refuses us.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bind_udp(address: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
    let socket = socket(address, Type::DGRAM, Protocol::UDP)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&SockAddr::from(address))?;
    Ok(socket.into())
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind.nonblocking().cloexec(), Some(protocol))?;
    // `[::]` serves IPv4 too, so that one address is enough for probes; loopback pairs are bound apart.
    if let SocketAddr::V6(v6) = address {
        socket.set_only_v6(!v6.ip().is_unspecified())?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PURPOSE: Purpose = Purpose { what: "test", field: "listen.test" };

    #[test]
    fn workers_share_a_port_and_nobody_else_gets_it() {
        let (listeners, port) = loopback_tcp(PURPOSE, 0, 2).unwrap();
        assert!(listeners.iter().all(|listener| listener.local_addr().unwrap().port() == port));
        let refused = loopback_tcp(PURPOSE, port, 2).unwrap_err();
        assert!(refused.to_string().contains("taken by another process"), "{refused}");
        let (sockets, port) = loopback_udp(PURPOSE, 0, 2).unwrap();
        assert!(sockets.len() >= 2);
        assert!(matches!(loopback_udp(PURPOSE, port, 2), Err(ListenError::Taken { .. })));
    }
}
