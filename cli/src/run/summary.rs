//! What the command reached and what it was refused, told once at the end.

#[cfg(test)]
mod tests;
mod text;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use sidegate_api::AccessRecord;
use sidegate_policy::Reason;
use sidegate_proxy::access_log::Sink;

use super::{args::SummaryWhen, suggestion::Known, wording};

/// Groups of each kind that are told by name; the rest is counted.
const MOST_GROUPS: usize = 1024;

/// Counts by destination. Clones share the counts: one goes to the access log, one stays for the end.
#[derive(Clone, Debug, Default)]
pub(super) struct Summary {
    counts: Arc<Mutex<Counts>>,
}

/// What the closing words depend on beside the records.
pub(super) struct Closing<'a> {
    /// When to say anything.
    pub(super) when: SummaryWhen,
    /// Records that never got here.
    pub(super) dropped: u64,
    /// Refused packets without a record of their own.
    pub(super) unrecorded: u64,
    /// What to write down.
    pub(super) advice: Advice<'a>,
    /// What the proxy knows beside the records.
    pub(super) known: Known<'a>,
}

/// What the summary ends with.
pub(super) enum Advice<'a> {
    /// Rules to add to the policy that applied.
    Rules,
    /// A first policy with those rules, since there was none, for this command.
    FirstPolicy(&'a str),
    /// A policy for all that this command was seen to reach.
    Audit(&'a str),
}

#[derive(Debug, Default)]
struct Counts {
    allowed: Groups,
    refused: Groups,
}

/// Connections, and questions for names.
#[derive(Debug, Default)]
struct Groups {
    by_key: BTreeMap<Key, Group>,
    /// Records beyond [`MOST_GROUPS`].
    beyond: u64,
    connections: u64,
    questions: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    reason: String,
    verdict: String,
    /// Host or address, with the port of a connection.
    place: String,
    protocol: String,
}

/// Records that differ in nothing that is told.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) count: u64,
    pub(super) first: AccessRecord,
    /// Record types that were asked for.
    types: BTreeSet<String>,
    /// Some server selected TLS 1.2.
    pub(super) tls12: bool,
    /// Some bytes passed.
    pub(super) spoke: bool,
}

impl Groups {
    fn add(&mut self, record: &AccessRecord) {
        match record.dns {
            Some(_) => self.questions += 1,
            None => self.connections += 1,
        }
        let key = Key::of(record);
        if !self.by_key.contains_key(&key) && self.by_key.len() >= MOST_GROUPS {
            self.beyond += 1;
            return;
        }
        let group = self.by_key.entry(key).or_insert_with(|| Group::of(record));
        group.count += 1;
        group.types.extend(record.dns.as_ref().map(|dns| dns.question.clone()));
        group.tls12 |= record.tls.as_ref().is_some_and(|tls| tls.version.as_deref() == Some("1.2"));
        group.spoke |= record.bytes_sent + record.bytes_received > 0;
    }

    fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

impl Key {
    fn of(record: &AccessRecord) -> Key {
        Key {
            reason: record.reason.clone(),
            verdict: record.verdict.clone(),
            place: wording::place(record),
            protocol: record.protocol.clone(),
        }
    }
}

impl Group {
    fn of(record: &AccessRecord) -> Group {
        Group { count: 0, first: record.clone(), types: BTreeSet::new(), tls12: false, spoke: false }
    }
}

impl Sink for Summary {
    fn record(&mut self, record: &AccessRecord) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let candidate = record.reason == Reason::DnsSearch.word();
        match (record.verdict.as_str(), &record.dns) {
            // A name that was looked up is told by the connection that follows, and a search-domain candidate is a
            // name that nobody meant.
            ("allowed", Some(_)) => {}
            (_, Some(_)) if candidate => {}
            ("allowed", None) => counts.allowed.add(record),
            _ => counts.refused.add(record),
        }
    }
}

impl Summary {
    /// The text for standard error; `None` when there is nothing to say.
    pub(super) fn text(&self, closing: &Closing<'_>) -> Option<String> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = match closing.when {
            SummaryWhen::Never => false,
            SummaryWhen::Denied => !counts.refused.is_empty() || closing.dropped + closing.unrecorded > 0,
            SummaryWhen::Always => true,
        };
        wanted.then(|| text::of(&counts, closing))
    }
}
