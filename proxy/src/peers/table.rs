//! The table itself, immutable.

use std::{collections::HashMap, net::IpAddr};

use sidegate_policy::{HostName, SpiffeId};

use crate::addrs::UpstreamAddr;

/// One workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who it has to prove to be.
    pub id: SpiffeId,
    /// Where it is; at least one.
    pub addresses: Vec<IpAddr>,
    /// Where it takes streams of the mesh.
    pub port: u16,
    /// Names that lead to it.
    pub hosts: Vec<HostName>,
}

/// Every workload that is known, found by address and by name without allocation.
#[derive(Debug, Default)]
pub struct Peers {
    peers: Box<[Peer]>,
    by_address: HashMap<IpAddr, u32>,
    by_host: HashMap<HostName, u32>,
}

impl Peers {
    /// Of peers that claim different addresses and names; else the last one has them.
    pub fn new(peers: Vec<Peer>) -> Peers {
        let (mut by_address, mut by_host) = (HashMap::new(), HashMap::new());
        for (place, peer) in (0..).zip(&peers) {
            by_address.extend(peer.addresses.iter().map(|address| (address.to_canonical(), place)));
            by_host.extend(peer.hosts.iter().map(|host| (host.clone(), place)));
        }
        Peers { peers: peers.into(), by_address, by_host }
    }

    /// Who is at an address.
    pub fn at(&self, address: IpAddr) -> Option<&Peer> {
        self.peers.get(*self.by_address.get(&address)? as usize)
    }

    /// Whom a name leads to.
    pub fn named(&self, host: &HostName) -> Option<&Peer> {
        self.peers.get(*self.by_host.get(host)? as usize)
    }

    /// All of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Peer> {
        self.peers.iter()
    }
}

impl Peer {
    /// Where it takes streams for one of its addresses.
    pub fn mesh_address(&self, address: IpAddr) -> UpstreamAddr {
        UpstreamAddr::new((address, self.port).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_found_by_address_and_by_name() {
        let peer = |name: &str, addresses: &[&str]| Peer {
            id: SpiffeId::parse(&format!("spiffe://example.org/{name}")).unwrap(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            port: 15008,
            hosts: vec![HostName::parse(&format!("{name}.internal")).unwrap()],
        };
        let peers = Peers::new(vec![peer("a", &["10.0.0.1", "fd00::1"]), peer("b", &["10.0.0.2"])]);
        let at = |address: &str| peers.at(address.parse().unwrap()).map(|peer| peer.id.as_str());
        assert_eq!(at("10.0.0.1"), Some("spiffe://example.org/a"));
        assert_eq!((at("fd00::1"), at("10.0.0.2")), (at("10.0.0.1"), Some("spiffe://example.org/b")));
        assert_eq!(at("10.0.0.3"), None);
        let named =
            |host: &str| peers.named(&HostName::parse(host).unwrap()).map(|peer| peer.addresses.len());
        assert_eq!((named("A.internal"), named("c.internal")), (Some(2), None));
        assert_eq!(
            peers
                .at("10.0.0.1".parse().unwrap())
                .unwrap()
                .mesh_address("10.0.0.1".parse().unwrap())
                .to_string(),
            "10.0.0.1:15008"
        );
    }
}
