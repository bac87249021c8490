//! Prefixes in a trie, each with a link to the next shorter one that holds it: one longest-prefix lookup, then a walk
//! up the links. (The trie's own iterator over covering prefixes allocates.)

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use super::index::{Bucket, Rank};

/// What hangs at one prefix.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Node {
    pub(crate) group: Bucket,
    pub(crate) prefix: Bucket,
    length: u8,
    /// The next shorter prefix that holds this one.
    parent: Option<u32>,
}

#[derive(Debug, Default)]
pub(crate) struct AddressIndex {
    nodes: Box<[Node]>,
    v4: PrefixMap<Ipv4Net, u32>,
    v6: PrefixMap<Ipv6Net, u32>,
}

impl AddressIndex {
    /// In the order of [`IpNet`], a prefix comes before those it holds.
    pub(crate) fn new(nodes: BTreeMap<IpNet, Node>) -> Self {
        let mut index = AddressIndex::default();
        let mut laid = Vec::with_capacity(nodes.len());
        let mut open: Vec<(IpNet, u32)> = Vec::new();
        for (position, (net, node)) in (0..).zip(nodes) {
            while open.last().is_some_and(|(outer, _)| !outer.contains(&net)) {
                open.pop();
            }
            let parent = open.last().map(|(_, position)| *position);
            laid.push(Node { length: net.prefix_len(), parent, ..node });
            open.push((net, position));
            match net {
                IpNet::V4(net) => index.v4.insert(net, position),
                IpNet::V6(net) => index.v6.insert(net, position),
            };
        }
        index.nodes = laid.into();
        index
    }

    /// The buckets of every prefix that holds the address, longest first.
    pub(crate) fn visit(&self, address: IpAddr, mut visit: impl FnMut(Rank, Bucket)) {
        let longest = match address {
            IpAddr::V4(v4) => self.v4.get_lpm(&Ipv4Net::from(v4)).map(|(_, position)| *position),
            IpAddr::V6(v6) => self.v6.get_lpm(&Ipv6Net::from(v6)).map(|(_, position)| *position),
        };
        let mut next = longest;
        while let Some(node) = next.and_then(|position| self.nodes.get(position as usize)) {
            visit(Rank::group(node.length), node.group);
            visit(Rank::prefix(node.length), node.prefix);
            next = node.parent;
        }
    }
}
