//! SPIFFE patterns by the literal part before their first wildcard.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::{SpiffeId, SpiffePattern};

use super::{index::Bucket, rank::Rank};

/// Patterns that share everything before their first wildcard segment.
#[derive(Debug, Default)]
struct Node {
    exact: Option<(Rank, Bucket)>,
    patterns: Vec<(SpiffePattern, Rank, Bucket)>,
}

/// Finds the patterns that match an identity without looking at all others.
#[derive(Debug, Default)]
pub(crate) struct PeerIndex {
    nodes: HashMap<Box<str>, Node, FixedState>,
}

impl PeerIndex {
    pub(super) fn insert(&mut self, pattern: &SpiffePattern, bucket: Bucket) {
        let text = pattern.as_str();
        let rank = Rank::workload(pattern);
        match text.find("/*") {
            None => self.nodes.entry(text.into()).or_default().exact = Some((rank, bucket)),
            Some(end) => {
                let literal = text.get(..end).unwrap_or_default();
                self.nodes.entry(literal.into()).or_default().patterns.push((pattern.clone(), rank, bucket));
            }
        }
    }

    pub(super) fn visit(&self, peer: &SpiffeId, mut visit: impl FnMut(Rank, Bucket)) {
        if self.nodes.is_empty() {
            return;
        }
        let text = peer.as_str();
        if let Some((rank, bucket)) = self.nodes.get(text).and_then(|node| node.exact) {
            visit(rank, bucket);
        }
        let slashes = text.bytes().enumerate().filter(|(_, byte)| *byte == b'/').map(|(at, _)| at);
        for node in slashes.filter_map(|end| self.nodes.get(text.get(..end)?)) {
            for (_, rank, bucket) in node.patterns.iter().filter(|(pattern, ..)| pattern.matches(peer)) {
                visit(*rank, *bucket);
            }
        }
    }
}
