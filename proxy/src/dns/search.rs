//! Search-domain candidates: names that nobody means, asked because the C library appends suffixes.

use sidegate_policy::{Date, HostName, PolicySet, Verdict};

/// Labels looked at when a name is taken apart: no client tries deeper names in good faith.
const LABELS: usize = 16;

/// Whether a denied name looks like a candidate: it ends in a search domain, or is an allowed name with something
/// appended. Clients stop at REFUSED, but try the next candidate at NXDOMAIN; the name that is meant comes among them.
///
/// Both answers are denials, so a wrong guess opens nothing.
pub(super) fn is_candidate(set: &PolicySet, host: &HostName, search: &[HostName], today: Date) -> bool {
    search.iter().any(|suffix| is_under(host, suffix)) || is_extended(set, host, today)
}

fn is_under(host: &HostName, suffix: &HostName) -> bool {
    host.as_str().strip_suffix(suffix.as_str()).is_some_and(|front| front.ends_with('.'))
}

fn is_extended(set: &PolicySet, host: &HostName, today: Date) -> bool {
    let ends = host.as_str().match_indices('.').map(|(end, _)| end).take(LABELS);
    ends.filter_map(|end| host.as_str().get(..end))
        .filter_map(|front| HostName::parse(front).ok())
        .any(|front| set.judge_name(&front, today).verdict == Verdict::Allowed)
}
