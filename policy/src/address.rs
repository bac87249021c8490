//! Addresses: IPv4 inside IPv6, and contiguous ranges as prefixes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The IPv4 addresses that an IPv6 address carries, by the forms whose place is fixed:
/// mapped and compatible (RFC 4291 section 2.5.5), translated (RFC 2765), NAT64 64:ff9b::/96 (RFC 6052),
/// 6to4 (RFC 3056), Teredo server and client (RFC 4380), ISATAP (RFC 5214).
///
/// NAT64 under 64:ff9b:1::/48 (RFC 8215) has no fixed place; [`is_local_nat64`] tells it.
pub fn embedded_v4(address: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let bits = address.to_bits();
    let low = Ipv4Addr::from_bits(bits as u32);
    let interface = (bits >> 32) as u32;
    match bits >> 32 {
        0 if bits > 1 => return [Some(low), None],
        0xffff | 0xffff_0000 | 0x0064_ff9b_0000_0000_0000_0000 => return [Some(low), None],
        _ => {}
    }
    // An ISATAP interface identifier may stand under any prefix, 6to4 and Teredo included.
    let isatap = (interface & !0x0200_0000 == 0x5efe).then_some(low);
    match bits >> 96 {
        0x2001_0000 => {
            [Some(Ipv4Addr::from_bits((bits >> 64) as u32)), Some(Ipv4Addr::from_bits(!(bits as u32)))]
        }
        top if top >> 16 == 0x2002 => [Some(Ipv4Addr::from_bits((bits >> 80) as u32)), isatap],
        _ => [isatap, None],
    }
}

/// 64:ff9b:1::/48, NAT64 for local use: the operator chooses where the IPv4 address stands. RFC 8215.
pub fn is_local_nat64(address: Ipv6Addr) -> bool {
    address.to_bits() >> 80 == 0x0064_ff9b_0001
}

/// The address itself and every IPv4 address it carries; an IPv4-mapped one becomes IPv4.
pub(crate) fn with_embedded(address: IpAddr) -> [Option<IpAddr>; 3] {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => [Some(v4), None, None],
        IpAddr::V6(v6) => {
            let [first, second] = embedded_v4(v6);
            [Some(IpAddr::V6(v6)), first.map(IpAddr::V4), second.map(IpAddr::V4)]
        }
    }
}

/// A contiguous, inclusive range of addresses of one family, as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AddressRange {
    pub(crate) v4: bool,
    pub(crate) first: u128,
    pub(crate) last: u128,
}

impl AddressRange {
    pub(crate) fn of(net: IpNet) -> Self {
        let (v4, first, last) = match net {
            IpNet::V4(net) => (true, net.network().to_bits().into(), net.broadcast().to_bits().into()),
            IpNet::V6(net) => (false, net.network().to_bits(), net.broadcast().to_bits()),
        };
        AddressRange { v4, first, last }
    }

    /// What is left of it without `hole`: nothing, one part, or one at each side.
    pub(crate) fn without(self, hole: AddressRange) -> [Option<AddressRange>; 2] {
        if self.v4 != hole.v4 || hole.last < self.first || hole.first > self.last {
            return [Some(self), None];
        }
        let before = (hole.first > self.first).then(|| AddressRange { last: hole.first - 1, ..self });
        let after = (hole.last < self.last).then(|| AddressRange { first: hole.last + 1, ..self });
        [before, after]
    }

    /// The part that both share.
    pub(crate) fn intersection(self, other: AddressRange) -> Option<AddressRange> {
        let (first, last) = (self.first.max(other.first), self.last.min(other.last));
        (self.v4 == other.v4 && first <= last).then_some(AddressRange { v4: self.v4, first, last })
    }

    /// Its smallest list of prefixes, ascending.
    pub(crate) fn nets(self) -> Vec<IpNet> {
        if self.v4 {
            let (first, last) =
                (Ipv4Addr::from_bits(self.first as u32), Ipv4Addr::from_bits(self.last as u32));
            ipnet::Ipv4Subnets::new(first, last, 0).map(IpNet::V4).collect()
        } else {
            let (first, last) = (Ipv6Addr::from_bits(self.first), Ipv6Addr::from_bits(self.last));
            ipnet::Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect()
        }
    }
}

/// The prefix of full length that holds just this address.
pub(crate) fn host_net(address: IpAddr) -> IpNet {
    match address {
        IpAddr::V4(v4) => IpNet::V4(Ipv4Net::from(v4)),
        IpAddr::V6(v6) => IpNet::V6(Ipv6Net::from(v6)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carried(text: &str) -> Vec<String> {
        let address = text.parse().expect("an IPv6 address");
        embedded_v4(address).into_iter().flatten().map(|v4| v4.to_string()).collect()
    }

    #[test]
    fn every_embedding_is_seen() {
        for (address, expected) in [
            ("::ffff:169.254.169.254", vec!["169.254.169.254"]),
            ("::ffff:0:169.254.169.254", vec!["169.254.169.254"]),
            ("::169.254.169.254", vec!["169.254.169.254"]),
            ("64:ff9b::a9fe:a9fe", vec!["169.254.169.254"]),
            ("2002:a9fe:a9fe::1", vec!["169.254.169.254"]),
            ("2002:808:808::5efe:a9fe:a9fe", vec!["8.8.8.8", "169.254.169.254"]),
            ("2001:0:a9fe:a9fe:0:0:f7f7:f7f7", vec!["169.254.169.254", "8.8.8.8"]),
            ("2001:0:808:808:0:0:5601:5601", vec!["8.8.8.8", "169.254.169.254"]),
            ("2600::5efe:a9fe:a9fe", vec!["169.254.169.254"]),
            ("2600::200:5efe:a9fe:a9fe", vec!["169.254.169.254"]),
            ("2600::1", vec![]),
            ("::", vec![]),
            ("::1", vec![]),
            ("64:ff9b:0:1::a9fe:a9fe", vec![]),
            ("2001:1:a9fe:a9fe::", vec![]),
        ] {
            assert_eq!(carried(address), expected, "{address}");
        }
    }

    #[test]
    fn a_hole_leaves_what_is_beside_it() {
        let range = |text: &str| AddressRange::of(text.parse().expect("a prefix"));
        let left = |from: &str, hole: &str| -> Vec<String> {
            let parts = range(from).without(range(hole)).into_iter().flatten();
            parts.flat_map(AddressRange::nets).map(|net| net.to_string()).collect()
        };
        assert_eq!(left("10.0.0.0/30", "10.0.0.1/32"), ["10.0.0.0/32", "10.0.0.2/31"]);
        assert_eq!(left("10.0.0.0/30", "10.0.0.0/31"), ["10.0.0.2/31"]);
        assert_eq!(left("10.0.0.0/30", "10.0.0.0/8"), Vec::<String>::new());
        assert_eq!(left("10.0.0.0/30", "::/0"), ["10.0.0.0/30"]);
        assert_eq!(left("0.0.0.0/0", "128.0.0.0/1"), ["0.0.0.0/1"]);
        assert_eq!(left("::/0", "8000::/1"), ["::/1"]);
    }
}
