//! How the application learns who connected, where a rule says so: a PROXY protocol header, or a `Forwarded` field.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use sidegate_policy::{Arrival, demands::ClientAddress};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::decide::{Facts, Permit};

/// PROXY protocol version 2, section 2.2: the twelve bytes that no other protocol begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const PROXIED: u8 = 0x21;
/// Stream over IPv4, and over IPv6.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// Writes the header if the permit asks for one. To be called before the first byte.
///
/// # Errors
/// The application is gone.
pub(crate) async fn introduce(upstream: &mut TcpStream, permit: &Permit) -> io::Result<()> {
    if permit.demands().client_address != Some(ClientAddress::ProxyProtocol) {
        return Ok(());
    }
    let facts = permit.facts();
    let Some(client) = facts.client else { return Ok(()) };
    upstream.write_all(&header(client.socket_addr(), facts.original.socket_addr())).await
}

fn header(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut addresses = Vec::with_capacity(36);
    let family = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            addresses.extend_from_slice(&from.octets());
            addresses.extend_from_slice(&to.octets());
            TCP4
        }
        (from, to) => {
            addresses.extend_from_slice(&octets(from));
            addresses.extend_from_slice(&octets(to));
            TCP6
        }
    };
    addresses.extend_from_slice(&source.port().to_be_bytes());
    addresses.extend_from_slice(&destination.port().to_be_bytes());
    let mut header = Vec::with_capacity(16 + addresses.len());
    header.extend_from_slice(SIGNATURE);
    header.extend_from_slice(&[PROXIED, family]);
    header.extend_from_slice(&(addresses.len() as u16).to_be_bytes());
    header.extend_from_slice(&addresses);
    header
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The value of `Forwarded` (RFC 7239 section 4) for a request, if the permit asks for one.
pub(crate) fn forwarded(permit: &Permit) -> Option<String> {
    let wanted = permit.demands().client_address == Some(ClientAddress::Forwarded);
    element(permit.facts()).filter(|_| wanted)
}

fn element(facts: &Facts) -> Option<String> {
    // Quoted: a colon is no character of a token.
    let client = facts.client?.socket_addr();
    let proto = if facts.arrival == Arrival::Plain { "http" } else { "https" };
    Some(format!("for=\"{client}\";proto={proto}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addrs::{ClientAddr, OriginalDst};

    #[test]
    fn a_header_holds_both_ends() {
        let v4 = header("192.0.2.7:4711".parse().unwrap(), "10.0.0.9:8080".parse().unwrap());
        assert_eq!(&v4[..12], SIGNATURE);
        assert_eq!(v4[12..], [0x21, 0x11, 0, 12, 192, 0, 2, 7, 10, 0, 0, 9, 0x12, 0x67, 0x1f, 0x90]);
        let v6 = header("[2001:db8::7]:1".parse().unwrap(), "[2001:db8::9]:2".parse().unwrap());
        assert_eq!((v6.len(), &v6[12..18]), (52, &[0x21, 0x21, 0, 36, 0x20, 0x01][..]));
        assert_eq!(v6[48..], [0, 1, 0, 2]);
    }

    #[test]
    fn an_element_names_the_client_and_what_it_spoke() {
        let of = |client: &str, arrival| {
            let client = ClientAddr::new(client.parse().unwrap());
            let original = OriginalDst::new("10.0.0.9:8080".parse().unwrap());
            element(&Facts::inbound(client, original, arrival, None)).unwrap()
        };
        assert_eq!(of("192.0.2.7:4711", Arrival::Plain), "for=\"192.0.2.7:4711\";proto=http");
        assert_eq!(of("[2001:db8::7]:1", Arrival::Mesh), "for=\"[2001:db8::7]:1\";proto=https");
    }
}
