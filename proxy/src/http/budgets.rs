//! How many requests a rule still lets pass: one bucket of tokens a rule, shared by all workers.
//!
//! `pingora-limits` counts events in windows: twice the limit may pass around the edge of two windows, a burst can't be
//! told from a rate, and its sketch lets one rule pay for another's hash. What policies promise is a bucket.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use sidegate_policy::{Direction, demands::RequestLimit, set::RuleFacts};
use tokio::time::Instant;

/// Rules of past policies are forgotten once there are more buckets than this, unless they were drawn on lately.
const BUCKETS: usize = 1024;

/// The buckets of all rules that limit their requests.
#[derive(Debug)]
pub(crate) struct Budgets {
    started: Instant,
    /// When each bucket is full again, since `started`: all that a bucket has to remember (generic cell rate algorithm).
    full_at: Mutex<HashMap<Key, Duration>>,
}

/// A rule by its names, so that its bucket outlives the generation, and the limit, so that a new one begins anew.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    direction: Direction,
    policy: Box<str>,
    rule: Box<str>,
    limit: RequestLimit,
}

impl Budgets {
    /// All buckets are full.
    pub(crate) fn new() -> Self {
        Budgets { started: Instant::now(), full_at: Mutex::default() }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// There is none; how long until there is one.
    pub(crate) fn take(
        &self,
        direction: Direction,
        rule: &RuleFacts,
        limit: RequestLimit,
    ) -> Result<(), Duration> {
        let now = self.started.elapsed();
        let key = Key { direction, policy: rule.policy.clone(), rule: rule.name.clone(), limit };
        let mut buckets = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS && !buckets.contains_key(&key) {
            buckets.retain(|_, full_at| *full_at > now);
        }
        let full_at = buckets.entry(key).or_default();
        let token = Duration::from_secs(1) / limit.per_second.max(1);
        let next = now.max(*full_at) + token;
        match next.checked_sub(now + token * limit.burst) {
            None | Some(Duration::ZERO) => {
                *full_at = next;
                Ok(())
            }
            Some(wait) => Err(wait),
        }
    }
}
