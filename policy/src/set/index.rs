//! Where a request finds the rules that could concern it: by host, by address, by peer. Lookups allocate nothing.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use crate::{
    Request, SpiffePattern,
    address::{AddressRange, host_net},
};

use super::{
    RuleId,
    addresses::{AddressIndex, Node},
    hosts::{HostIndex, HostKey},
    peers::PeerIndex,
    rule::End,
};

/// One end of one rule at one range of ports. A rule appears once for every end and port range it has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) rule: RuleId,
    pub(crate) first_port: u16,
    pub(crate) last_port: u16,
    /// One-based index of the `except` list that narrows this end; 0: none.
    except: u32,
    pub(crate) private: bool,
}

/// Entries of one key: a range in [`Index::entries`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket {
    first: u32,
    end: u32,
}

/// How specific the match of an end is; higher wins. Exact host, longest wildcard, workload, group, longest prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank(u32);

impl Rank {
    pub(crate) const EXACT_HOST: Rank = Rank(0x500);

    /// Among workload patterns, the one with more literal segments, then the one without `**`.
    pub(crate) fn workload(pattern: &SpiffePattern) -> Rank {
        let specificity = pattern.specificity();
        Rank(0x300 + u32::from(specificity.literal.min(127)) * 2 + u32::from(specificity.bounded))
    }

    pub(crate) fn prefix(length: u8) -> Rank {
        Rank(0x100 + u32::from(length))
    }

    pub(crate) fn group(length: u8) -> Rank {
        Rank(0x200 + u32::from(length))
    }

    /// A wildcard over a suffix of `labels`; of two over the same suffix, the one that matches a single label.
    pub(crate) fn wildcard(labels: u8, one_label: bool) -> Rank {
        Rank(0x400 + u32::from(labels.min(127)) * 2 + u32::from(one_label))
    }
}

/// An entry that a request reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) rank: Rank,
    pub(crate) end: End,
    pub(crate) entry: &'a Entry,
    /// The address is in the `except` of this end.
    pub(crate) excepted: bool,
}

impl Candidate<'_> {
    pub(crate) fn covers_port(&self, port: u16) -> bool {
        self.entry.first_port <= port && port <= self.entry.last_port
    }
}

/// The rules of one direction and one action.
#[derive(Debug, Default)]
pub(crate) struct Index {
    entries: Box<[Entry]>,
    hosts: HostIndex,
    addresses: AddressIndex,
    peers: PeerIndex,
    excepts: Box<[Box<[AddressRange]>]>,
}

impl Index {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn hosts(&self) -> &HostIndex {
        &self.hosts
    }

    pub(crate) fn bucket(&self, bucket: Bucket) -> &[Entry] {
        self.entries.get(bucket.first as usize..bucket.end as usize).unwrap_or_default()
    }

    /// Every entry that the request's host, address or peer reaches.
    pub(crate) fn visit<'a>(&'a self, request: &Request<'_>, mut visit: impl FnMut(Candidate<'a>)) {
        if let Some((_, host)) = request.host {
            self.visit_host(host.as_str(), &mut visit);
        }
        if let Some(peer) = request.peer {
            self.peers.visit(peer, |rank, bucket| {
                for entry in self.bucket(bucket) {
                    visit(Candidate { rank, end: End::Workload, entry, excepted: false });
                }
            });
        }
        if let Some(address) = request.address {
            self.visit_address(address, &mut visit);
        }
    }

    pub(crate) fn visit_host<'a>(&'a self, host: &str, mut visit: impl FnMut(Candidate<'a>)) {
        self.hosts.visit(host, |rank, bucket| {
            for entry in self.bucket(bucket) {
                visit(Candidate { rank, end: End::Host, entry, excepted: false });
            }
        });
    }

    pub(crate) fn visit_address<'a>(&'a self, address: IpAddr, mut visit: impl FnMut(Candidate<'a>)) {
        self.addresses.visit(address, |rank, bucket| {
            for entry in self.bucket(bucket) {
                let excepted = self.is_excepted(entry, address);
                visit(Candidate { rank, end: End::Address, entry, excepted });
            }
        });
    }

    fn is_excepted(&self, entry: &Entry, address: IpAddr) -> bool {
        let Some(ranges) = (entry.except as usize).checked_sub(1).and_then(|index| self.excepts.get(index))
        else {
            return false;
        };
        let point = AddressRange::of(host_net(address));
        let after = ranges.partition_point(|range| (range.v4, range.first) <= (point.v4, point.first));
        let before = after.checked_sub(1).and_then(|index| ranges.get(index));
        before.is_some_and(|range| range.v4 == point.v4 && point.first <= range.last)
    }
}

/// What an end is found by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    Host(HostKey),
    Workload(SpiffePattern),
    Group(IpNet),
    Prefix(IpNet),
}

/// An end to be indexed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewEntry {
    pub(crate) rule: RuleId,
    pub(crate) ports: (u16, u16),
    pub(crate) private: bool,
    pub(crate) except: Option<ExceptId>,
}

/// An `except` list of the index under construction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExceptId(u32);

/// Collects ends, then lays them out for lookup.
#[derive(Debug, Default)]
pub(crate) struct IndexBuilder {
    ends: Vec<(Key, Entry)>,
    excepts: Vec<Box<[AddressRange]>>,
}

impl IndexBuilder {
    pub(crate) fn add(&mut self, key: Key, new: NewEntry) {
        let (first_port, last_port) = new.ports;
        let except = new.except.map_or(0, |ExceptId(index)| index);
        self.ends.push((key, Entry { rule: new.rule, first_port, last_port, except, private: new.private }));
    }

    pub(crate) fn except(&mut self, nets: &[IpNet]) -> Option<ExceptId> {
        if nets.is_empty() {
            return None;
        }
        let mut ranges: Vec<_> = IpNet::aggregate(&nets.to_vec()).into_iter().map(AddressRange::of).collect();
        ranges.sort_unstable();
        self.excepts.push(ranges.into());
        u32::try_from(self.excepts.len()).ok().map(ExceptId)
    }

    /// Lays the ends out: by key, then port, then rule, so that no order of input shows.
    pub(crate) fn build(mut self) -> Index {
        self.ends.sort_unstable_by(|(a, x), (b, y)| {
            a.cmp(b)
                .then_with(|| (x.first_port, x.last_port, x.rule).cmp(&(y.first_port, y.last_port, y.rule)))
        });
        let mut index = Index { excepts: self.excepts.into(), ..Index::default() };
        let mut entries = Vec::with_capacity(self.ends.len());
        let mut nodes: BTreeMap<IpNet, Node> = BTreeMap::new();
        for of_one_key in self.ends.chunk_by(|(a, _), (b, _)| a == b) {
            let Some((key, _)) = of_one_key.first() else { continue };
            let Some(first) = of_one_key.iter().map(|(_, entry)| entry.rule).min() else { continue };
            let start = position(entries.len());
            entries.extend(of_one_key.iter().map(|(_, entry)| *entry));
            let bucket = Bucket { first: start, end: position(entries.len()) };
            match key {
                Key::Host(host) => index.hosts.insert(host, bucket, first),
                Key::Workload(pattern) => index.peers.insert(pattern, bucket),
                Key::Group(net) => nodes.entry(*net).or_default().group = bucket,
                Key::Prefix(net) => nodes.entry(*net).or_default().prefix = bucket,
            }
        }
        index.addresses = AddressIndex::new(nodes);
        index.entries = entries.into();
        index
    }

    /// The ends that share one key, in the order of keys.
    pub(crate) fn ends(&self) -> &[(Key, Entry)] {
        &self.ends
    }
}

/// Entries are counted in 32 bits; a set with more cannot be held in memory of this size.
fn position(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
