//! What the command reached and what it was refused, told once at the end.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
};

use sidegate_api::AccessRecord;
use sidegate_proxy::access_log::Sink;

use super::{args::SummaryWhen, suggestion, wording};

/// Groups that are told by name; the rest is counted.
const MOST_GROUPS: usize = 256;
/// Groups that are printed of each kind.
const MOST_PRINTED: usize = 20;

/// Counts by destination. Clones share the counts: one goes to the access log, one stays for the end.
#[derive(Clone, Debug, Default)]
pub(super) struct Summary {
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    allowed: Groups,
    refused: Groups,
}

#[derive(Debug, Default)]
struct Groups {
    by_destination: BTreeMap<String, Group>,
    /// Records beyond [`MOST_GROUPS`] destinations.
    beyond: u64,
    total: u64,
}

#[derive(Debug)]
struct Group {
    count: u64,
    first: AccessRecord,
}

impl Groups {
    fn add(&mut self, key: String, record: &AccessRecord) {
        self.total += 1;
        if let Some(group) = self.by_destination.get_mut(&key) {
            group.count += 1;
        } else if self.by_destination.len() < MOST_GROUPS {
            self.by_destination.insert(key, Group { count: 1, first: record.clone() });
        } else {
            self.beyond += 1;
        }
    }
}

impl Sink for Summary {
    fn record(&mut self, record: &AccessRecord) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if record.verdict == "allowed" {
            // A name that was looked up is told by the connection that follows.
            if record.dns.is_none() {
                counts.allowed.add(wording::destination(record), record);
            }
        } else {
            let key = format!("{} ({})", wording::destination(record), record.reason);
            counts.refused.add(key, record);
        }
    }
}

impl Summary {
    /// The text for standard error; `None` when there is nothing to say. `dropped`: records that never got here.
    pub(super) fn text(&self, when: SummaryWhen, dropped: u64) -> Option<String> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = match when {
            SummaryWhen::Never => false,
            SummaryWhen::Denied => counts.refused.total > 0 || dropped > 0,
            SummaryWhen::Always => true,
        };
        wanted.then(|| counts.text(dropped))
    }
}

impl Counts {
    fn text(&self, dropped: u64) -> String {
        let mut text = String::new();
        let would = self.refused.by_destination.values().all(|group| group.first.verdict == "would-deny");
        let word = if would && self.refused.total > 0 { "would deny" } else { "denied" };
        // Writing to a string can't fail.
        let _ = writeln!(text, "\nsidegate: {} allowed, {} {word}", self.allowed.total, self.refused.total);
        section(&mut text, "allowed", &self.allowed, |_| String::new());
        section(&mut text, word, &self.refused, |record| format!("  {}", wording::why(record)));
        if dropped > 0 {
            let _ = writeln!(text, "  {dropped} records were dropped: more traffic than could be told");
        }
        let refused = self.refused.by_destination.values().map(|group| &group.first);
        if let Some(rules) = suggestion::rules(refused) {
            let _ =
                writeln!(text, "  to allow what is intended, add to the policy under spec.egress:\n{rules}");
        }
        text
    }
}

fn section(text: &mut String, word: &str, groups: &Groups, detail: impl Fn(&AccessRecord) -> String) {
    let mut ordered: Vec<_> = groups.by_destination.iter().collect();
    ordered.sort_by_key(|(_, group)| std::cmp::Reverse(group.count));
    for (destination, group) in ordered.iter().take(MOST_PRINTED) {
        let _ = writeln!(text, "  {word:<10} {:>5} x {destination}{}", group.count, detail(&group.first));
    }
    let unseen: u64 = ordered.iter().skip(MOST_PRINTED).map(|(_, group)| group.count).sum();
    if unseen + groups.beyond > 0 {
        let _ = writeln!(text, "  {word:<10} {:>5} x elsewhere", unseen + groups.beyond);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::wording::tests::denied;

    #[test]
    fn nothing_is_said_when_nothing_was_denied_unless_asked() {
        let mut summary = Summary::default();
        let mut allowed = denied("good.example", 443);
        allowed.verdict = "allowed".into();
        summary.record(&allowed);
        assert_eq!(summary.text(SummaryWhen::Denied, 0), None);
        assert!(summary.text(SummaryWhen::Always, 0).unwrap().contains("1 allowed, 0 denied"));
        assert!(summary.text(SummaryWhen::Denied, 3).unwrap().contains("3 records were dropped"));
    }

    #[test]
    fn denials_are_grouped_and_followed_by_the_rule_to_add() {
        let mut summary = Summary::default();
        summary.record(&denied("evil.example", 443));
        summary.record(&denied("evil.example", 443));
        let text = summary.text(SummaryWhen::Denied, 0).unwrap();
        assert!(text.contains("2 x tls evil.example:443 (no-rule)"), "{text}");
        assert!(text.contains("hosts: [ evil.example ]"), "{text}");
        assert_eq!(summary.text(SummaryWhen::Never, 0), None);
    }

    #[test]
    fn endless_destinations_are_counted_not_kept() {
        let mut summary = Summary::default();
        for port in 1..=1000 {
            summary.record(&denied("many.example", port));
        }
        let text = summary.text(SummaryWhen::Denied, 0).unwrap();
        assert!(text.contains("1000 denied") && text.contains("980 x elsewhere"), "{text}");
        assert_eq!(summary.counts.lock().unwrap().refused.by_destination.len(), MOST_GROUPS);
    }
}
