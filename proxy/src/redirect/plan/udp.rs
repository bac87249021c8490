//! Allowed datagram destinations as disjoint blocks: the kernel refuses overlapping elements.

use std::{net::IpAddr, ops::RangeInclusive};

use ipnet::IpNet;
use sidegate_policy::set::UdpDestination;

/// Consecutive addresses with consecutive ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) net: IpNet,
    pub(crate) ports: RangeInclusive<u16>,
}

impl Block {
    /// First and last address.
    pub(crate) fn bounds(&self) -> (IpAddr, IpAddr) {
        (self.net.network(), self.net.broadcast())
    }
}

/// The same destinations without overlaps, by family. The union is exactly that of `destinations`.
pub(super) fn blocks(destinations: &[UdpDestination]) -> (Vec<Block>, Vec<Block>) {
    let (v4, v6): (Vec<_>, Vec<_>) = destinations.iter().partition(|d| matches!(d.net, IpNet::V4(_)));
    (disjoint(&v4), disjoint(&v6))
}

/// Cuts the ports wherever any range begins or ends; within one slice the nets are merged.
fn disjoint(destinations: &[&UdpDestination]) -> Vec<Block> {
    let mut cuts: Vec<u32> = destinations
        .iter()
        .flat_map(|d| [u32::from(*d.ports.start()), u32::from(*d.ports.end()) + 1])
        .collect();
    cuts.sort_unstable();
    cuts.dedup();
    let mut slices: Vec<(RangeInclusive<u16>, Vec<IpNet>)> = Vec::new();
    for (from, to) in cuts.iter().zip(cuts.iter().skip(1)) {
        let (Ok(from), Ok(to)) = (u16::try_from(*from), u16::try_from(*to - 1)) else { continue };
        let covering = destinations.iter().filter(|d| d.ports.contains(&from)).map(|d| d.net.trunc());
        let nets = IpNet::aggregate(&covering.collect::<Vec<_>>());
        match slices.last_mut() {
            Some((ports, before)) if *before == nets && ports.end().checked_add(1) == Some(from) => {
                *ports = *ports.start()..=to;
            }
            _ => slices.push((from..=to, nets)),
        }
    }
    let block = |ports: &RangeInclusive<u16>, net| Block { net, ports: ports.clone() };
    slices.iter().flat_map(|(ports, nets)| nets.iter().map(|net| block(ports, *net))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn destination(net: &str, ports: RangeInclusive<u16>) -> UdpDestination {
        UdpDestination { net: net.parse().expect("a net"), ports }
    }

    #[test]
    fn overlapping_destinations_are_cut_into_disjoint_blocks() {
        let wide = destination("10.0.0.0/8", 100..=200);
        let narrow = destination("10.1.0.0/16", 150..=65535);
        let (v4, v6) = blocks(&[wide, narrow]);
        let text: Vec<_> = v4.iter().map(|b| format!("{} {:?}", b.net, b.ports)).collect();
        assert_eq!(text, ["10.0.0.0/8 100..=200", "10.1.0.0/16 201..=65535"]);
        assert!(v6.is_empty());
    }

    prop_compose! {
        fn any_destination()(a in 0u8..4, length in 28u8..=32, from in 0u16..40, width in 0u16..20) -> UdpDestination {
            let net = ipnet::Ipv4Net::new([10, 0, 0, a * 7].into(), length).expect("a length up to 32");
            UdpDestination { net: net.into(), ports: from..=from + width }
        }
    }

    proptest! {
        #[test]
        fn every_address_and_port_is_in_exactly_as_many_blocks_as_allowed(
            destinations in proptest::collection::vec(any_destination(), 0..8),
            last in 0u8..64,
            port in 0u16..70,
        ) {
            let address = IpAddr::from([10, 0, 0, last]);
            let allowed = destinations.iter().any(|d| d.net.contains(&address) && d.ports.contains(&port));
            let (v4, _) = blocks(&destinations);
            let hits = v4.iter().filter(|b| b.net.contains(&address) && b.ports.contains(&port)).count();
            prop_assert_eq!(hits, usize::from(allowed));
        }
    }
}
