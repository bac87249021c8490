//! The fixed deny table: destinations that no ordinary rule opens, and the grants that do.

mod guard;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{
    Reason,
    address::{AddressRange, embedded_v4, is_local_nat64},
};

/// Judges an original destination before any rule. `None`: the table has nothing against it.
///
/// Private ranges are fine here (an address rule may name them); see [`denied_answer`] for names.
/// An IPv6 address that carries an IPv4 address is judged by both.
pub fn denied_destination(address: IpAddr) -> Option<Reason> {
    match address.to_canonical() {
        IpAddr::V4(v4) => EVERYWHERE_V4.first(v4),
        IpAddr::V6(v6) => {
            let carried = || embedded_v4(v6).into_iter().flatten().find_map(|v4| EVERYWHERE_V4.first(v4));
            carried().or_else(|| EVERYWHERE_V6.first(v6))
        }
    }
}

/// Judges an address that a name resolved to. Stricter: also private, CGNAT, ULA and embedded-IPv4 forms, unless
/// `private` (which opens private, ULA and CGNAT only).
pub fn denied_answer(address: IpAddr, private: bool) -> Option<Reason> {
    let reason = match address {
        IpAddr::V4(v4) => denied_answer_v4(v4),
        IpAddr::V6(v6) => denied_answer_v6(v6),
    };
    reason.filter(|reason| !(private && *reason == Reason::AddressPrivate))
}

fn denied_answer_v4(address: Ipv4Addr) -> Option<Reason> {
    EVERYWHERE_V4.first(address).or_else(|| NAMES_V4.first(address))
}

fn denied_answer_v6(address: Ipv6Addr) -> Option<Reason> {
    let carried = embedded_v4(address);
    if carried.iter().any(Option::is_some) || is_local_nat64(address) {
        // The embedded form itself is refused; a reason of what it carries says more, except `AddressPrivate`,
        // which `private` would open.
        let worse = carried.into_iter().flatten().find_map(|v4| EVERYWHERE_V4.first(v4));
        return worse.or_else(|| EVERYWHERE_V6.first(address)).or(Some(Reason::AddressEmbedded));
    }
    EVERYWHERE_V6.first(address).or_else(|| NAMES_V6.first(address))
}

/// Why the table's own lines deny every address that `except` leaves of a prefix; `None`: they don't.
pub(crate) fn denied_whole(net: IpNet, except: &[IpNet]) -> Option<Reason> {
    let v4 = EVERYWHERE_V4.lines.iter().map(|line| (IpNet::V4(line.net), line.reason));
    let v6 = EVERYWHERE_V6.lines.iter().map(|line| (IpNet::V6(line.net), line.reason));
    let mut left = vec![AddressRange::of(net)];
    let mut take = |hole: IpNet| {
        let rest: Vec<_> =
            left.iter().flat_map(|range| range.without(AddressRange::of(hole))).flatten().collect();
        std::mem::replace(&mut left, rest) != left
    };
    for hole in except {
        take(*hole);
    }
    let mut reason = None;
    for (hole, why) in v4.chain(v6) {
        if take(hole) {
            reason = reason.or(Some(why));
        }
    }
    reason.filter(|_| left.is_empty())
}

/// A named opening in the fixed table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Grant {
    /// EC2 instance metadata, version 2, without what [`Grant::Ec2ImdsCredentials`] opens.
    Ec2Imds,
    /// The EC2 instance's own credentials and user data.
    Ec2ImdsCredentials,
    /// ECS task credentials and metadata.
    EcsTask,
    /// EKS Pod Identity agent.
    EksPodIdentity,
    /// Amazon time service (UDP 123).
    Time,
}

/// One exact triple that a [`Grant`] opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Opening {
    /// The address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// Datagrams rather than TCP.
    pub udp: bool,
}

impl Grant {
    /// Every grant.
    pub const ALL: &'static [Grant] =
        &[Grant::Ec2Imds, Grant::Ec2ImdsCredentials, Grant::EcsTask, Grant::EksPodIdentity, Grant::Time];

    /// The word that documents use.
    pub const fn word(self) -> &'static str {
        match self {
            Grant::Ec2Imds => "ec2-imds",
            Grant::Ec2ImdsCredentials => "ec2-imds-credentials",
            Grant::EcsTask => "ecs-task",
            Grant::EksPodIdentity => "eks-pod-identity",
            Grant::Time => "time",
        }
    }

    /// What it opens; nothing else of the table.
    ///
    /// Sources: Amazon EC2 user guide "Access instance metadata" and "Set the time reference", Amazon ECS developer
    /// guide "Task IAM role", Amazon EKS user guide "EKS Pod Identity agent".
    pub const fn openings(self) -> &'static [Opening] {
        const IMDS: &[Opening] = &[tcp(AWS_IMDS, 80), tcp(AWS_IMDS_V6, 80)];
        const TASK: &[Opening] = &[tcp(ECS_TASK, 80)];
        const AGENT: &[Opening] =
            &[tcp(EKS_AGENT, 80), tcp(EKS_AGENT, 2703), tcp(EKS_AGENT_V6, 80), tcp(EKS_AGENT_V6, 2703)];
        const TIME: &[Opening] = &[udp(AWS_TIME, 123), udp(AWS_TIME_V6, 123)];
        match self {
            Grant::Ec2Imds | Grant::Ec2ImdsCredentials => IMDS,
            Grant::EcsTask => TASK,
            Grant::EksPodIdentity => AGENT,
            Grant::Time => TIME,
        }
    }
}

const fn tcp(address: IpAddr, port: u16) -> Opening {
    Opening { address, port, udp: false }
}

const fn udp(address: IpAddr, port: u16) -> Opening {
    Opening { address, port, udp: true }
}

const AWS_IMDS: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));
const AWS_IMDS_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254));
const ECS_TASK: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2));
const EKS_AGENT: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23));
const EKS_AGENT_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23));
const AWS_TIME: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 123));
const AWS_TIME_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x123));

/// A part of the table: the first line that holds an address names the reason.
struct Table<N: 'static> {
    lines: &'static [Line<N>],
    /// First octets that some line lies under: most addresses are cleared by one look.
    octets: [bool; 256],
}

/// A prefix, and why it is denied.
struct Line<N> {
    net: N,
    reason: Reason,
}

macro_rules! table {
    ($net:ty, $address:ty) => {
        impl Table<$net> {
            const fn new(lines: &'static [Line<$net>]) -> Self {
                let mut octets = [false; 256];
                let mut at = 0;
                while at < lines.len() {
                    let net = &lines[at].net;
                    let first = net.addr().octets()[0] as usize;
                    let mut octet = first;
                    // A prefix shorter than an octet covers several.
                    while octet < 256 && (octet ^ first) >> 8_u8.saturating_sub(net.prefix_len()) == 0 {
                        octets[octet] = true;
                        octet += 1;
                    }
                    at += 1;
                }
                Table { lines, octets }
            }

            fn first(&self, address: $address) -> Option<Reason> {
                let [octet, ..] = address.octets();
                if self.octets.get(usize::from(octet)) == Some(&false) {
                    return None;
                }
                self.lines.iter().find(|line| line.net.contains(&address)).map(|line| line.reason)
            }
        }
    };
}
table!(Ipv4Net, Ipv4Addr);
table!(Ipv6Net, Ipv6Addr);

const fn v4([a, b, c, d]: [u8; 4], length: u8, reason: Reason) -> Line<Ipv4Net> {
    Line { net: Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length), reason }
}

const fn v6(head: [u16; 4], tail: [u16; 4], length: u8, reason: Reason) -> Line<Ipv6Net> {
    let ([a, b, c, d], [e, f, g, h]) = (head, tail);
    Line { net: Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), length), reason }
}

use Reason::{
    AddressBroadcast as Broadcast, AddressEmbedded as Embedded, AddressLinkLocal as LinkLocal,
    AddressLoopback as Loopback, AddressMetadata as Metadata, AddressMulticast as Multicast,
    AddressPrivate as Private, AddressReserved as Reserved, AddressUnspecified as Unspecified,
};

/// IPv4 denied for original destinations and for names. IANA IPv4 special-purpose registry (RFC 6890).
static EVERYWHERE_V4: Table<Ipv4Net> = Table::<Ipv4Net>::new(&[
    v4([0, 0, 0, 0], 8, Unspecified),
    v4([100, 100, 100, 200], 32, Metadata), // Alibaba Cloud
    v4([127, 0, 0, 0], 8, Loopback),
    v4([168, 63, 129, 16], 32, Metadata), // Azure wire server, DNS and health probes
    v4([169, 254, 169, 254], 32, Metadata), // AWS, Azure, Google, Oracle, OpenStack, DigitalOcean, Hetzner, IBM, ...
    v4([169, 254, 169, 252], 31, Metadata), // GKE metadata proxy, Amazon resolver
    v4([169, 254, 169, 123], 32, Metadata), // Amazon time
    v4([169, 254, 170, 2], 32, Metadata),   // ECS task credentials
    v4([169, 254, 170, 23], 32, Metadata),  // EKS Pod Identity
    v4([169, 254, 0, 23], 32, Metadata),    // Tencent Cloud
    v4([169, 254, 42, 42], 32, Metadata),   // Scaleway
    v4([169, 254, 0, 0], 16, LinkLocal),
    v4([192, 0, 0, 192], 32, Metadata), // Oracle Cloud, classic
    v4([192, 0, 0, 0], 24, Reserved),
    v4([198, 18, 0, 0], 15, Reserved), // our synthetic range: a real destination in it would carry no name's permission
    v4([224, 0, 0, 0], 4, Multicast),
    v4([255, 255, 255, 255], 32, Broadcast),
    v4([240, 0, 0, 0], 4, Reserved),
]);

/// IPv4 denied for names besides.
static NAMES_V4: Table<Ipv4Net> = Table::<Ipv4Net>::new(&[
    v4([10, 0, 0, 0], 8, Private),
    v4([100, 64, 0, 0], 10, Private), // shared address space, RFC 6598
    v4([172, 16, 0, 0], 12, Private),
    v4([192, 168, 0, 0], 16, Private),
    v4([192, 0, 2, 0], 24, Private), // documentation, RFC 5737: not routed publicly, so in use they are a private network
    v4([198, 51, 100, 0], 24, Private),
    v4([203, 0, 113, 0], 24, Private),
    v4([192, 88, 99, 0], 24, Reserved), // 6to4 relays, RFC 7526
]);

/// IPv6 denied for original destinations and for names. IANA IPv6 special-purpose registry (RFC 6890).
static EVERYWHERE_V6: Table<Ipv6Net> = Table::<Ipv6Net>::new(&[
    v6([0; 4], [0; 4], 128, Unspecified),
    v6([0; 4], [0, 0, 0, 1], 128, Loopback),
    v6([0; 4], [0; 4], 96, Embedded), // IPv4-compatible: nothing real is reached so
    v6([0x64, 0xff9b, 1, 0], [0; 4], 48, Embedded), // the IPv4 address has no fixed place, so it can't be judged
    v6([0xfd00, 0xec2, 0, 0], [0; 4], 32, Metadata), // AWS: metadata, resolver, time, Pod Identity
    v6([0xfd20, 0xce, 0, 0], [0; 4], 48, Metadata), // Google Cloud
    v6([0xfd00, 0xc1, 0, 0], [0, 0, 0xa9fe, 0xa9fe], 128, Metadata), // Oracle Cloud
    v6([0xfd00, 0xa9fe, 0xa9fe, 0], [0; 4], 64, Metadata), // Akamai (Linode)
    v6([0xfd00, 0x42, 0, 0], [0, 0, 0, 0x42], 128, Metadata), // Scaleway
    v6([0xfe80, 0, 0, 0], [0, 0, 0xa9fe, 0xa9fe], 128, Metadata), // OpenStack, Hetzner
    v6([0xfe80, 0, 0, 0], [0; 4], 10, LinkLocal),
    v6([0xfd00, 0x5de6, 0, 0], [0; 4], 64, Reserved), // our synthetic range
    v6([0xff00, 0, 0, 0], [0; 4], 8, Multicast),
]);

/// IPv6 denied for names besides. Of what remains, only global unicast (2000::/3) is reachable by a name.
static NAMES_V6: Table<Ipv6Net> = Table::<Ipv6Net>::new(&[
    v6([0xfc00, 0, 0, 0], [0; 4], 7, Private),
    v6([0x2001, 0xdb8, 0, 0], [0; 4], 32, Private), // documentation, RFC 3849 and RFC 9637
    v6([0x3fff, 0, 0, 0], [0; 4], 20, Private),
    v6([0x2001, 2, 0, 0], [0; 4], 48, Reserved), // benchmarks, RFC 5180
    v6([0x2001, 0x10, 0, 0], [0; 4], 28, Reserved), // ORCHID, RFC 4843 and RFC 7343
    v6([0x2001, 0x20, 0, 0], [0; 4], 28, Reserved),
    v6([0, 0, 0, 0], [0; 4], 3, Reserved),
    v6([0x4000, 0, 0, 0], [0; 4], 2, Reserved),
    v6([0x8000, 0, 0, 0], [0; 4], 1, Reserved), // with site-local fec0::/10, RFC 3879
]);

/// Prefixes that no datagram rule opens: the table, and every form with a fixed prefix that carries IPv4.
pub(crate) fn datagram_denials() -> impl Iterator<Item = IpNet> {
    let carrying = [
        v6([0, 0, 0, 0], [0, 0xffff, 0, 0], 96, Embedded),
        v6([0, 0, 0, 0], [0xffff, 0, 0, 0], 96, Embedded),
        v6([0x64, 0xff9b, 0, 0], [0; 4], 96, Embedded),
        v6([0x2002, 0, 0, 0], [0; 4], 16, Embedded),
        v6([0x2001, 0, 0, 0], [0; 4], 32, Embedded),
    ];
    let v4 = EVERYWHERE_V4.lines.iter().map(|line| IpNet::V4(line.net));
    let v6 = EVERYWHERE_V6.lines.iter().map(|line| IpNet::V6(line.net));
    v4.chain(v6).chain(carrying.into_iter().map(|line| IpNet::V6(line.net)))
}

#[cfg(test)]
mod tests;
