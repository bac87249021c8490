//! How specific a match is.

use crate::SpiffePattern;

/// How specific the match of an end is; higher wins. Exact host, longest wildcard, workload, group, longest prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank(u32);

impl Rank {
    /// Below every match.
    pub(crate) const NONE: Rank = Rank(0);
    /// Above every match.
    pub(crate) const ALL: Rank = Rank(u32::MAX);
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
