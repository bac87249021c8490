//! Host patterns by their suffixes: one hash lookup a label, from the top-level domain downwards.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::{HostName, HostPattern};

use super::{
    RuleId,
    index::{Bucket, Rank},
};

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

/// What hangs at one name: patterns that end there, and the first rule at or below it.
#[derive(Clone, Copy, Debug, Default)]
struct Node {
    exact: Bucket,
    one_label: Bucket,
    any_depth: Bucket,
    near: Option<RuleId>,
}

/// Every name of a pattern and every parent of one. A parent is always present, so a walk stops at the first absence.
///
/// The hash is not keyed: the names inside come from policies; lookups by clients insert nothing.
#[derive(Debug, Default)]
pub(crate) struct HostIndex {
    nodes: HashMap<Box<str>, Node, FixedState>,
}

impl HostIndex {
    pub(crate) fn insert(&mut self, key: &HostKey, bucket: Bucket, rule: RuleId) {
        let name = key.name.as_str();
        for suffix in suffixes(name) {
            let node = self.nodes.entry(suffix.into()).or_default();
            node.near = Some(node.near.map_or(rule, |near| near.min(rule)));
        }
        let node = self.nodes.entry(name.into()).or_default();
        match key.kind {
            HostKind::Exact => node.exact = bucket,
            HostKind::OneLabel => node.one_label = bucket,
            HostKind::AnyDepth => node.any_depth = bucket,
        }
    }

    /// Every bucket whose pattern matches the name.
    pub(crate) fn visit(&self, host: &str, mut visit: impl FnMut(Rank, Bucket)) {
        if self.nodes.is_empty() {
            return;
        }
        for (above, suffix) in (1u8..).zip(suffixes(host)) {
            let Some(node) = self.nodes.get(suffix) else { return };
            // Labels of `host` left of the suffix decide which of its patterns match.
            let Some(before) = host.len().checked_sub(suffix.len() + 1) else {
                return visit(Rank::EXACT_HOST, node.exact);
            };
            visit(Rank::wildcard(above, false), node.any_depth);
            if !host.as_bytes().iter().take(before).any(|byte| *byte == b'.') {
                visit(Rank::wildcard(above, true), node.one_label);
            }
        }
    }

    /// A rule for a name that shares at least two labels with this one, and as many as possible.
    pub(crate) fn near(&self, host: &str) -> Option<RuleId> {
        let known = suffixes(host).map_while(|suffix| self.nodes.get(suffix));
        known.skip(1).last().and_then(|node| node.near)
    }
}

/// `com`, `example.com`, `www.example.com`.
fn suffixes(name: &str) -> impl Iterator<Item = &str> {
    let dots = name.bytes().enumerate().rev().filter(|(_, byte)| *byte == b'.').map(|(at, _)| at + 1);
    dots.chain([0]).filter_map(|start| name.get(start..))
}
