//! Answers that may still be used, bounded in number.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use sidegate_policy::HostName;
use tokio::time::Instant;

use super::resolver::{Family, ResolveError, Resolved};

/// What is asked: a name and a family.
pub(super) type Key = (HostName, Family);

/// A clock cache: an entry that was used since the hand last passed it stays for another round.
#[derive(Debug)]
pub(super) struct Cache {
    capacity: usize,
    entries: HashMap<Key, Entry>,
    /// Every key of `entries` exactly once, in the order in which the hand passes.
    hand: VecDeque<Key>,
}

#[derive(Debug)]
struct Entry {
    outcome: Result<Vec<IpAddr>, ResolveError>,
    expires: Instant,
    used: bool,
}

impl Cache {
    /// `capacity`: entries, at least 1.
    pub(super) fn new(capacity: usize) -> Self {
        Cache { capacity: capacity.max(1), entries: HashMap::new(), hand: VecDeque::new() }
    }

    /// What is known of a name, if it has not expired. The TTL is what is left of it.
    pub(super) fn find(&mut self, key: &Key, now: Instant) -> Option<Result<Resolved, ResolveError>> {
        let entry = self.entries.get_mut(key)?;
        let left = entry.expires.checked_duration_since(now).filter(|left| !left.is_zero())?;
        entry.used = true;
        // Rounded up: an entry that may still be used never shows a TTL of zero.
        let ttl = u32::try_from(left.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
        Some(entry.outcome.clone().map(|addresses| Resolved { addresses, ttl }))
    }

    /// Keeps an outcome for `ttl` seconds from `now`.
    pub(super) fn keep(
        &mut self,
        key: Key,
        outcome: Result<Vec<IpAddr>, ResolveError>,
        ttl: u32,
        now: Instant,
    ) {
        let entry = Entry { outcome, expires: now + Duration::from_secs(ttl.into()), used: false };
        if self.entries.insert(key.clone(), entry).is_some() {
            return;
        }
        self.hand.push_back(key);
        if self.entries.len() > self.capacity {
            self.evict(now);
        }
    }

    /// Ends after at most one full round: a pass clears `used`, and the newest entry starts without it.
    fn evict(&mut self, now: Instant) {
        while let Some(key) = self.hand.pop_front() {
            match self.entries.get_mut(&key) {
                Some(entry) if entry.used && entry.expires > now => {
                    entry.used = false;
                    self.hand.push_back(key);
                }
                _ => {
                    self.entries.remove(&key);
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
