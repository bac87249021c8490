//! Host patterns by their names, hashed. Which numbers of labels occur decides how often a host is looked up: once for
//! itself, once for each wildcard depth that some rule has.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, Hasher},
};

use foldhash::fast::FixedState;

use crate::{HostName, HostPattern, host::public_labels};

use super::{RuleId, index::Bucket, layout::position, rank::Rank};

/// A pattern as a key: its name, then its kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct HostKey {
    name: HostName,
    kind: HostKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum HostKind {
    Exact,
    OneLabel,
    AnyDepth,
}

impl HostKey {
    pub(crate) fn of(pattern: &HostPattern) -> Self {
        let (name, kind) = match pattern {
            HostPattern::Exact(name) => (name, HostKind::Exact),
            HostPattern::OneLabel(name) => (name, HostKind::OneLabel),
            HostPattern::AnyDepth(name) => (name, HostKind::AnyDepth),
        };
        HostKey { name: name.clone(), kind }
    }
}

/// What hangs at one name: patterns that end there, and the first allow rule at or below it.
#[derive(Clone, Copy, Debug, Default)]
struct Node {
    exact: Bucket,
    one_label: Bucket,
    any_depth: Bucket,
    near: Option<RuleId>,
    name: Name,
}

/// Where a name stands in [`HostIndex::names`]: a parent's is the end of a pattern's.
#[derive(Clone, Copy, Debug, Default)]
struct Name {
    start: usize,
    length: u8,
}

impl Name {
    /// The last that stands in names of that length. A name has at most 253 bytes.
    fn ending(names: usize, name: &str) -> Self {
        Name { start: names.saturating_sub(name.len()), length: name.len() as u8 }
    }

    fn within(self, names: &str) -> Option<&str> {
        names.get(self.start..)?.get(..self.length.into())
    }
}

/// Which numbers of labels occur, a bit each; a name has at most 127.
#[derive(Clone, Copy, Debug, Default)]
struct Depths(u128);

impl Depths {
    fn add(&mut self, labels: u8) {
        self.0 |= 1_u128.checked_shl(labels.into()).unwrap_or_default();
    }

    fn has(self, labels: u8) -> bool {
        self.0.checked_shr(labels.into()).unwrap_or_default() & 1 == 1
    }

    fn any_below(self, labels: u8) -> bool {
        self.0.trailing_zeros() < u32::from(labels)
    }

    fn deepest(self) -> u8 {
        (u128::BITS - self.0.leading_zeros()).saturating_sub(1) as u8
    }
}

/// Every name of a pattern and every parent of one.
///
/// The hash is not keyed: the names inside come from policies; lookups by clients insert nothing.
#[derive(Debug, Default)]
pub(crate) struct HostIndex {
    nodes: Box<[Node]>,
    names: Box<str>,
    /// Open addressing, at most half full: a part of the hash, and the node's position or [`EMPTY`].
    slots: Box<[(u32, u32)]>,
    exact: Depths,
    one_label: Depths,
    any_depth: Depths,
    known: Depths,
}

const EMPTY: u32 = u32::MAX;

impl HostIndex {
    /// Patterns, each with what it leads to and its first allow rule.
    pub(super) fn new(patterns: &[(&HostKey, Bucket, Option<RuleId>)]) -> Self {
        let mut index = HostIndex::default();
        let mut names = String::new();
        let mut nodes: BTreeMap<&str, Node> = BTreeMap::new();
        for (key, bucket, first) in patterns {
            let name = key.name.as_str();
            names.push_str(name);
            for (labels, suffix) in suffixes(name) {
                index.known.add(labels);
                let new = || Node { name: Name::ending(names.len(), suffix), ..Node::default() };
                let near = &mut nodes.entry(suffix).or_insert_with(new).near;
                *near = (*near).into_iter().chain(*first).min();
            }
            let Some(node) = nodes.get_mut(name) else { continue };
            let (at_kind, depths) = match key.kind {
                HostKind::Exact => (&mut node.exact, &mut index.exact),
                HostKind::OneLabel => (&mut node.one_label, &mut index.one_label),
                HostKind::AnyDepth => (&mut node.any_depth, &mut index.any_depth),
            };
            *at_kind = *bucket;
            depths.add(labels(name));
        }
        index.slots = slots(nodes.keys().copied());
        index.nodes = nodes.into_values().collect();
        index.names = names.into();
        index
    }

    fn find(&self, name: &str) -> Option<&Node> {
        let (first, tag) = place(name);
        let mask = self.slots.len().checked_sub(1)?;
        for step in 0..=mask {
            let (other, node) = *self.slots.get(first.wrapping_add(step) & mask)?;
            // `EMPTY` is no position.
            let node = self.nodes.get(node as usize)?;
            if other == tag && node.name.within(&self.names) == Some(name) {
                return Some(node);
            }
        }
        None
    }

    /// Every bucket whose pattern matches the name, most specific first.
    pub(super) fn visit(&self, host: &str, mut visit: impl FnMut(Rank, Bucket)) {
        let all = labels(host);
        if self.exact.has(all)
            && let Some(node) = self.find(host)
        {
            visit(Rank::EXACT_HOST, node.exact);
        }
        if !self.any_depth.any_below(all) && !self.one_label.has(all.wrapping_sub(1)) {
            return;
        }
        for (labels, suffix) in suffixes(host).skip(1) {
            let single = labels + 1 == all && self.one_label.has(labels);
            if (single || self.any_depth.has(labels))
                && let Some(node) = self.find(suffix)
            {
                if single {
                    visit(Rank::wildcard(labels, true), node.one_label);
                }
                visit(Rank::wildcard(labels, false), node.any_depth);
            }
            if !self.any_depth.any_below(labels) {
                return;
            }
        }
    }

    /// The first rule for a name that shares as many labels with this one as any, and more than strangers do.
    pub(crate) fn near(&self, host: &str) -> Option<RuleId> {
        let deepest = self.known.deepest();
        let known = suffixes(host).filter(|(labels, _)| (2..=deepest).contains(labels));
        let mut known = known.filter_map(|(labels, suffix)| Some((labels, self.find(suffix)?.near?)));
        known.next().filter(|(labels, _)| usize::from(*labels) > public_labels(host)).map(|(_, near)| near)
    }
}

/// The table of names, each with its position.
fn slots<'n>(names: impl ExactSizeIterator<Item = &'n str>) -> Box<[(u32, u32)]> {
    let size = if names.len() == 0 { 0 } else { (names.len() * 2).next_power_of_two() };
    let mut slots = vec![(0, EMPTY); size];
    for (node, name) in names.enumerate() {
        let (first, tag) = place(name);
        let mut probed = (0..size).map(|step| first.wrapping_add(step) & (size - 1));
        let free = probed.find(|at| slots.get(*at).is_some_and(|(_, node)| *node == EMPTY));
        if let Some(slot) = free.and_then(|at| slots.get_mut(at)) {
            *slot = (tag, position(node));
        }
    }
    slots.into()
}

/// Where the search for a name begins, and what is compared before the name itself.
fn place(name: &str) -> (usize, u32) {
    let mut hasher = FixedState::default().build_hasher();
    hasher.write(name.as_bytes());
    let hash = hasher.finish();
    (hash as usize, (hash >> 32) as u32)
}

/// A name has at most 253 bytes, so a byte counts its dots.
fn labels(name: &str) -> u8 {
    name.bytes().fold(1_u8, |labels, byte| labels.wrapping_add(u8::from(byte == b'.')))
}

/// With their labels: `www.example.com`, `example.com`, `com`.
fn suffixes(name: &str) -> impl Iterator<Item = (u8, &str)> {
    let mut rest = Some((labels(name), name));
    std::iter::from_fn(move || {
        let (labels, suffix) = rest?;
        let dot = suffix.bytes().position(|byte| byte == b'.');
        rest = dot.and_then(|dot| Some((labels.wrapping_sub(1), suffix.get(dot + 1..)?)));
        Some((labels, suffix))
    })
}

#[cfg(test)]
mod tests;
