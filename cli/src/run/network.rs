//! The command's network: loopback, routes that lead to it, redirect rules, and the proxy's listeners.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
};

use sidegate_proxy::redirect::{
    self, DNS_PORT, NFLOG_GROUP, Netlink, OUTBOUND_PORT, RedirectError, Refusals, Refused, Spec, sysctl,
};
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait to be accepted, a listener.
const BACKLOG: i32 = 1024;

/// Brings loopback up and gives every destination a route, so that packets live long enough to be redirected.
pub(super) fn prepare() -> io::Result<()> {
    redirect::prepare_loopback().map_err(refused)?;
    // Without it, some of many short connections wait a second: slower, but as safe.
    let _ = sysctl::tune();
    Ok(())
}

/// Writes the redirect rules and subscribes to what they refuse.
pub(super) fn redirect() -> io::Result<Refusals> {
    let mut netlink = Netlink::netfilter()?;
    redirect::install(&mut netlink, &Spec::run()).map_err(|error| match error {
        RedirectError::Refused(error) => refused(error),
        RedirectError::Devices(error) | RedirectError::Watch(error) => error,
        RedirectError::NotPermitted(_) => io::Error::new(io::ErrorKind::PermissionDenied, error.to_string()),
        RedirectError::Unsupported(_) => io::Error::new(io::ErrorKind::Unsupported, error.to_string()),
    })?;
    Refusals::open(NFLOG_GROUP).map_err(refused)
}

/// The kernel's error number survives, which tells the cause.
fn refused(error: Refused) -> io::Error {
    error.source
}

/// The proxy's sockets in the command's network. The rules redirect IPv4 to 127.0.0.1 and IPv6 to ::1.
#[derive(Debug)]
pub(super) struct Bound {
    /// Redirected TCP.
    pub(super) outbound: Vec<TcpListener>,
    /// DNS over UDP.
    pub(super) dns_udp: Vec<UdpSocket>,
    /// DNS over TCP.
    pub(super) dns_tcp: Vec<TcpListener>,
}

impl Bound {
    /// Binds one socket a kind and address family, with a descriptor for each worker. A kernel without IPv6 gets none
    /// for it.
    ///
    /// Not several sockets with SO_REUSEPORT: the command has the same uid, could join the group, and take connections away
    /// from the record.
    pub(super) fn bind(workers: usize) -> io::Result<Bound> {
        let mut bound = Bound { outbound: Vec::new(), dns_udp: Vec::new(), dns_tcp: Vec::new() };
        for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            match bound.bind_family(ip, workers) {
                Err(error) if ip.is_ipv6() && is_absent(&error) => {}
                other => other?,
            }
        }
        Ok(bound)
    }

    fn bind_family(&mut self, ip: IpAddr, workers: usize) -> io::Result<()> {
        let outbound = listen(SocketAddr::new(ip, OUTBOUND_PORT))?;
        let dns_tcp = listen(SocketAddr::new(ip, DNS_PORT))?;
        let dns_udp = bind(SocketAddr::new(ip, DNS_PORT), Type::DGRAM, Protocol::UDP)?;
        let dns_udp = UdpSocket::from(dns_udp);
        for _ in 0..workers {
            self.outbound.push(outbound.try_clone()?);
            self.dns_tcp.push(dns_tcp.try_clone()?);
            self.dns_udp.push(dns_udp.try_clone()?);
        }
        Ok(())
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bind(address, Type::STREAM, Protocol::TCP)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bind(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable)
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}
