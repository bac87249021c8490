//! Prefixes by the ranges that they cut addresses into, each with a link to the next shorter one that holds it: one
//! lookup finds the longest, the links lead to the others.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use crate::address::AddressRange;

use super::{cells::Cells, index::Bucket, layout::position, rank::Rank};

/// What hangs at one prefix.
#[derive(Clone, Copy, Debug)]
struct Node {
    group: Bucket,
    prefix: Bucket,
    /// The next shorter prefix that holds this one, or [`NONE`].
    parent: u32,
    /// The most specific allow rule here or at a shorter prefix that holds this one.
    allows: Rank,
    /// Whether a deny rule stands here or at a shorter prefix that holds this one.
    denies: bool,
    length: u8,
}

/// No prefix holds the address.
const NONE: u32 = u32::MAX;

#[derive(Debug, Default)]
pub(crate) struct AddressIndex {
    nodes: Box<[Node]>,
    v4: Cells<u32>,
    v6: Cells<u128>,
    /// Over all prefixes.
    allows: Rank,
    denies: bool,
}

impl AddressIndex {
    /// Prefixes, each with what its groups and the prefix itself lead to. In the order of [`IpNet`], a prefix comes
    /// before those it holds.
    pub(super) fn new(nets: &BTreeMap<IpNet, [Bucket; 2]>) -> Self {
        let mut index = AddressIndex::default();
        let mut nodes: Vec<Node> = Vec::with_capacity(nets.len());
        let mut cuts = Cuts::default();
        for (net, [group, prefix]) in nets {
            let parent = cuts.open(*net, position(nodes.len()));
            let above = nodes.get(parent as usize);
            let length = net.prefix_len();
            let by = |bucket: &Bucket, rank| if bucket.has_allows() { rank } else { Rank::NONE };
            let own = by(group, Rank::group(length)).max(by(prefix, Rank::prefix(length)));
            let node = Node {
                group: *group,
                prefix: *prefix,
                parent,
                allows: own.max(above.map_or(Rank::NONE, |above| above.allows)),
                denies: group.has_denies() || prefix.has_denies() || above.is_some_and(|above| above.denies),
                length,
            };
            index.allows = index.allows.max(node.allows);
            index.denies |= node.denies;
            nodes.push(node);
        }
        cuts.close_all();
        index.nodes = nodes.into();
        index.v4 = Cells::new(cuts.v4.into_iter().map(|(start, node)| (start as u32, node)).collect());
        index.v6 = Cells::new(cuts.v6);
        index
    }

    /// The buckets of every prefix that holds the address, longest prefix first. `visit` returns the rank below which
    /// allow rules no longer matter; `floor` is that rank from the start.
    pub(super) fn visit(
        &self,
        address: IpAddr,
        mut floor: Rank,
        mut visit: impl FnMut(Rank, Bucket) -> Rank,
    ) {
        if self.allows < floor && !self.denies {
            return;
        }
        let mut next = match address {
            IpAddr::V4(v4) => self.v4.find(v4.to_bits()),
            IpAddr::V6(v6) => self.v6.find(v6.to_bits()),
        };
        while let Some(node) = next.and_then(|position| self.nodes.get(position as usize)) {
            if node.allows < floor && !node.denies {
                return;
            }
            if node.group.allows < node.group.end {
                floor = visit(Rank::group(node.length), node.group);
            }
            if node.prefix.allows < node.prefix.end {
                floor = visit(Rank::prefix(node.length), node.prefix);
            }
            next = Some(node.parent);
        }
    }
}

/// Where prefixes begin and end, and which is the longest from there on.
#[derive(Default)]
struct Cuts {
    v4: Vec<(u128, u32)>,
    v6: Vec<(u128, u32)>,
    /// Prefixes that hold the latest one, and itself.
    open: Vec<(AddressRange, u32)>,
}

impl Cuts {
    /// Begins a prefix; its parent, or [`NONE`].
    fn open(&mut self, net: IpNet, node: u32) -> u32 {
        let range = AddressRange::of(net);
        while let Some((last, _)) = self.open.last()
            && last.intersection(range).is_none()
        {
            self.close();
        }
        let parent = self.open.last().map_or(NONE, |(_, node)| *node);
        self.cut(range.v4, range.first, node);
        self.open.push((range, node));
        parent
    }

    /// Ends the latest prefix: from there on its parent is the longest.
    fn close(&mut self) {
        let Some((range, _)) = self.open.pop() else { return };
        let parent = self.open.last().map_or(NONE, |(_, node)| *node);
        let end = if range.v4 { u128::from(u32::MAX) } else { u128::MAX };
        if range.last < end {
            self.cut(range.v4, range.last + 1, parent);
        }
    }

    fn close_all(&mut self) {
        while !self.open.is_empty() {
            self.close();
        }
    }

    /// A later cut at the same place is by a prefix further in, or by one that begins where another ends.
    fn cut(&mut self, v4: bool, at: u128, node: u32) {
        let cuts = if v4 { &mut self.v4 } else { &mut self.v6 };
        match cuts.last_mut() {
            Some((last, holder)) if *last == at => *holder = node,
            _ => cuts.push((at, node)),
        }
    }
}

#[cfg(test)]
mod tests;
