//! Ends of rules, gathered and laid out as an [`Index`].

use std::{collections::BTreeMap, ops::RangeInclusive};

use ipnet::IpNet;

use crate::{SpiffePattern, address::AddressRange, document::Action};

use super::{
    RuleId,
    addresses::AddressIndex,
    hosts::{HostIndex, HostKey},
    index::{Bucket, Entry, Index, Ranges},
};

/// What an end is found by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    Host(HostKey),
    Workload(SpiffePattern),
    Group(IpNet),
    Prefix(IpNet),
}

/// A rule's end to be indexed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewEntry {
    pub(crate) rule: RuleId,
    pub(crate) action: Action,
    pub(crate) ports: Ports,
    pub(crate) private: bool,
    pub(crate) except: Option<ExceptId>,
}

/// Ports of the index under construction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    hull: (u16, u16),
    ranges: u32,
}

impl Ports {
    pub(crate) fn single(port: u16) -> Self {
        Ports { hull: (port, port), ranges: 0 }
    }
}

/// An `except` list of the index under construction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExceptId(u32);

/// An end as it was added.
#[derive(Clone, Debug)]
pub(crate) struct Added {
    pub(crate) key: Key,
    pub(crate) action: Action,
    pub(crate) entry: Entry,
}

/// Collects ends, then lays them out for lookup.
#[derive(Debug, Default)]
pub(crate) struct IndexBuilder {
    ends: Vec<Added>,
    excepts: Vec<Box<[AddressRange]>>,
    ranges: Vec<Ranges>,
    known_ranges: BTreeMap<Ranges, u32>,
}

impl IndexBuilder {
    pub(crate) fn add(&mut self, key: Key, new: NewEntry) {
        let entry = Entry {
            rule: new.rule,
            ports: new.ports.hull,
            ranges: new.ports.ranges,
            except: new.except.map_or(0, |ExceptId(index)| index),
            private: new.private,
        };
        self.ends.push(Added { key, action: new.action, entry });
    }

    /// `ports` are ascending and disjoint; `None`: there are none. Lists are kept once: most rules share few.
    pub(crate) fn ports(&mut self, ports: &[RangeInclusive<u16>]) -> Option<Ports> {
        let hull = (*ports.first()?.start(), *ports.last()?.end());
        if ports.len() == 1 {
            return Some(Ports { hull, ranges: 0 });
        }
        let list: Ranges = ports.iter().map(|range| (*range.start(), *range.end())).collect();
        if let Some(known) = self.known_ranges.get(&list) {
            return Some(Ports { hull, ranges: *known });
        }
        self.ranges.push(list.clone());
        let ranges = position(self.ranges.len());
        self.known_ranges.insert(list, ranges);
        Some(Ports { hull, ranges })
    }

    pub(crate) fn except(&mut self, nets: &[IpNet]) -> Option<ExceptId> {
        if nets.is_empty() {
            return None;
        }
        let mut ranges: Vec<_> = IpNet::aggregate(&nets.to_vec()).into_iter().map(AddressRange::of).collect();
        ranges.sort_unstable();
        self.excepts.push(ranges.into());
        Some(ExceptId(position(self.excepts.len())))
    }

    /// Lays the ends out: by key, allows before denies, then by rule, so that no order of input shows.
    pub(crate) fn build(mut self) -> Index {
        self.ends.sort_by(|a, b| {
            let order = |end: &Added| (end.action as u8, end.entry.rule, end.entry.ports);
            a.key.cmp(&b.key).then_with(|| order(a).cmp(&order(b)))
        });
        let mut index = Index {
            excepts: self.excepts.into(),
            ranges: self.ranges.into(),
            entries: self.ends.iter().map(|end| end.entry).collect(),
            ..Index::default()
        };
        let mut hosts = Vec::new();
        let mut nets: BTreeMap<IpNet, [Bucket; 2]> = BTreeMap::new();
        let mut start = 0;
        for of_one_key in self.ends.chunk_by(|a, b| a.key == b.key) {
            let allows = of_one_key.partition_point(|end| end.action == Action::Allow);
            let bucket = Bucket {
                allows: position(start),
                denies: position(start + allows),
                end: position(start + of_one_key.len()),
            };
            start += of_one_key.len();
            let Some(first) = of_one_key.first() else { continue };
            match &first.key {
                Key::Host(host) => {
                    let near = (allows > 0).then_some(first.entry.rule);
                    hosts.push((host, bucket, near));
                }
                Key::Workload(pattern) => index.peers.insert(pattern, bucket),
                Key::Group(net) => nets.entry(*net).or_default()[0] = bucket,
                Key::Prefix(net) => nets.entry(*net).or_default()[1] = bucket,
            }
        }
        index.hosts = HostIndex::new(&hosts);
        index.addresses = AddressIndex::new(&nets);
        index
    }

    /// Every end that was added.
    pub(crate) fn ends(&self) -> &[Added] {
        &self.ends
    }
}

/// Entries are counted in 32 bits; a set with more cannot be held in memory of this size.
pub(super) fn position(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
