//! Addresses, protocol and ports of an IP packet whose sender is not to be trusted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Refusal, RefusedProtocol};

const HOP_BY_HOP: u8 = 0;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;
/// Extension headers that are followed; more is nothing that a kernel sends.
const MAX_EXTENSIONS: usize = 8;

/// Reads the headers of a packet (RFC 791, RFC 8200). `None`: too short or not IP.
pub(super) fn read(packet: &[u8]) -> Option<Refusal> {
    match packet.first()? >> 4 {
        4 => read_v4(packet),
        6 => read_v6(packet),
        _ => None,
    }
}

fn read_v4(packet: &[u8]) -> Option<Refusal> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets).into())
    };
    let first_fragment = packet.get(6..8).is_some_and(|f| f[0] & 0x1f == 0 && f[1] == 0);
    let payload = if first_fragment { packet.get(header..) } else { None };
    Some(refusal(*packet.get(9)?, address(12)?, address(16)?, payload.unwrap_or_default()))
}

fn read_v6(packet: &[u8]) -> Option<Refusal> {
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
        Some(Ipv6Addr::from(octets).into())
    };
    let (source, destination) = (address(8)?, address(24)?);
    let mut next = *packet.get(6)?;
    let mut rest = packet.get(40..).unwrap_or_default();
    for _ in 0..MAX_EXTENSIONS {
        let length = match next {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => match rest.get(1) {
                Some(units) => (usize::from(*units) + 1) * 8,
                None => break,
            },
            FRAGMENT => 8,
            _ => break,
        };
        let (Some(following), Some(after)) = (rest.first(), rest.get(length..)) else { break };
        (next, rest) = (*following, after);
    }
    Some(refusal(next, source, destination, rest))
}

fn refusal(protocol: u8, source: IpAddr, destination: IpAddr, payload: &[u8]) -> Refusal {
    let (protocol, ports) = match protocol {
        TCP => (RefusedProtocol::Tcp, true),
        UDP => (RefusedProtocol::Udp, true),
        ICMP | ICMPV6 => (RefusedProtocol::Icmp, false),
        other => (RefusedProtocol::Other(other), false),
    };
    let port = |at: usize| match payload.get(at..at + 2) {
        Some(&[high, low]) if ports => u16::from_be_bytes([high, low]),
        _ => 0,
    };
    Refusal {
        protocol,
        source: SocketAddr::new(source, port(0)),
        destination: SocketAddr::new(destination, port(2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(protocol: u8, fragment: [u8; 2]) -> Vec<u8> {
        let mut packet = vec![0x46, 0, 0, 32, 0, 0, fragment[0], fragment[1], 64, protocol, 0, 0];
        packet.extend_from_slice(&[192, 0, 0, 8, 192, 0, 2, 1, 1, 1, 1, 1]);
        packet.extend_from_slice(&[0x9c, 0x40, 0x01, 0xbb, 0, 8, 0, 0]);
        packet
    }

    fn v6(next: u8, extension: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 8, next, 64];
        packet.extend_from_slice(&Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).octets());
        packet.extend_from_slice(&Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).octets());
        packet.extend_from_slice(extension);
        packet.extend_from_slice(&[0x9c, 0x40, 0x01, 0xbb, 0, 8, 0, 0]);
        packet
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn ports_are_found_behind_options_and_extension_headers() {
        let told = read(&v4(UDP, [0, 0])).expect("IPv4");
        assert_eq!(told.protocol, RefusedProtocol::Udp);
        assert_eq!((told.source, told.destination), (address("192.0.0.8:40000"), address("192.0.2.1:443")));
        let told = read(&v6(HOP_BY_HOP, &[UDP, 0, 5, 2, 0, 0, 1, 0])).expect("IPv6");
        assert_eq!(told.protocol, RefusedProtocol::Udp);
        assert_eq!(told.destination, address("[2001:db8::1]:443"));
    }

    #[test]
    fn what_has_no_ports_is_given_none() {
        assert_eq!(read(&v4(132, [0, 0])).expect("SCTP").protocol, RefusedProtocol::Other(132));
        assert_eq!(read(&v4(136, [0, 0])).expect("UDP-Lite").destination, address("192.0.2.1:0"));
        assert_eq!(read(&v4(UDP, [0x00, 0x10])).expect("a later fragment").destination.port(), 0);
        assert_eq!(read(&v6(ICMPV6, &[])).expect("ICMPv6").protocol, RefusedProtocol::Icmp);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_reader_fail(mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..100), six: bool) {
            if let Some(first) = bytes.first_mut() {
                *first = if six { 0x60 } else { 0x40 | (*first & 0x0f) };
            }
            let _ = read(&bytes);
        }
    }
}
