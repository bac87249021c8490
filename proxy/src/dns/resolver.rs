//! A forwarding stub over the configured resolvers: never a recursor.

mod flight;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hickory_proto::rr::RecordType;
use sidegate_policy::{HostName, Reason};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use self::flight::{Flights, Seat};
use super::{
    answer::Answer,
    cache::{Cache, Key},
    resolv_conf::ResolvConf,
    upstream,
};
use crate::limits::MOST_QUESTIONS;

/// Names and families that are remembered.
const CACHED: usize = 10_000;
/// Seconds that addresses may be used: long enough to be worth caching, short enough that a change gets through.
const TTL: std::ops::RangeInclusive<u32> = 5..=3600;
/// Seconds that the absence of a name or address is remembered.
const NEGATIVE_TTL: std::ops::RangeInclusive<u32> = 1..=60;
/// Seconds that a failure is remembered, so that retries don't pile up on a failing resolver.
const FAILURE_TTL: u32 = 2;

/// Address families to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// A records.
    V4,
    /// AAAA records.
    V6,
}

/// Addresses of a name, pinned until they expire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// In the order of the answer, without duplicates; unfiltered by policy. At least one, at most 64.
    pub addresses: Vec<IpAddr>,
    /// Seconds they may still be used (TTL, clamped to 5-3600 s, less their age).
    pub ttl: u32,
}

/// Why a name has no addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// NXDOMAIN.
    #[error("no such name")]
    NotFound,
    /// The name exists without an address of this family.
    #[error("no address of this family")]
    NoAddress,
    /// Every resolver failed or answered nonsense.
    #[error("every resolver failed")]
    Failed,
    /// No resolver answered in time.
    #[error("no resolver answered in time")]
    Timeout,
    /// Not asked: too many different names under one pattern lately.
    #[error("too many different names under one wildcard rule")]
    Budget,
}

/// How long to wait for resolvers.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// The first wait for each resolver; the second round waits twice as long.
    pub per_try: Duration,
    /// For the whole question, whatever happens.
    pub total: Duration,
}

/// Asks, checks, caches. Cheap to clone; usable from every worker.
#[derive(Clone, Debug)]
pub struct Resolver {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    servers: Box<[SocketAddr]>,
    patience: Patience,
    cache: Mutex<Cache>,
    flights: Flights,
    outstanding: Semaphore,
}

impl Resolver {
    /// A resolver over `servers`, asked in order. Waits 2 s for each, 5 s in all.
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        Self::with_patience(servers, Patience::default())
    }

    /// As [`Resolver::new`] with other deadlines.
    pub fn with_patience(servers: Vec<SocketAddr>, patience: Patience) -> Self {
        Resolver {
            shared: Arc::new(Shared {
                servers: servers.into(),
                patience,
                cache: Mutex::new(Cache::new(CACHED)),
                flights: Flights::default(),
                outstanding: Semaphore::new(MOST_QUESTIONS),
            }),
        }
    }

    /// The resolvers that `/etc/resolv.conf` names.
    ///
    /// # Errors
    /// The file can't be read or names none.
    pub fn system_servers() -> std::io::Result<Vec<SocketAddr>> {
        let servers = ResolvConf::system()?.servers;
        if servers.is_empty() {
            return Err(std::io::Error::new(
                std::io::ErrorKind::NotFound,
                "/etc/resolv.conf names no resolver",
            ));
        }
        Ok(servers)
    }

    /// Lets at most so many questions wait for an answer at once; each holds a descriptor. Call before any is asked.
    pub(crate) fn narrow_to(&self, questions: usize) {
        let outstanding = &self.shared.outstanding;
        outstanding.forget_permits(outstanding.available_permits().saturating_sub(questions));
    }

    /// Addresses of one family, from cache or upstream. Concurrent questions for one name are asked once.
    pub async fn resolve(&self, host: &HostName, family: Family) -> Result<Resolved, ResolveError> {
        let key = (host.clone(), family);
        let deadline = Instant::now() + self.shared.patience.total;
        loop {
            if let Some(known) = self.shared.cache().find(&key, Instant::now()) {
                return known;
            }
            match self.shared.flights.board(&key) {
                Seat::Pilot(flight) => {
                    // Another may have landed since the cache was searched.
                    let known = self.shared.cache().find(&key, Instant::now());
                    let outcome = match known {
                        Some(known) => known,
                        None => self.shared.ask(&key, deadline).await,
                    };
                    flight.land(outcome.clone());
                    return outcome;
                }
                Seat::Passenger(mut flight) => match timeout_at(deadline, flight.landed()).await {
                    Ok(Some(outcome)) => return outcome,
                    // The one who asked was cancelled: look again, perhaps ask ourselves.
                    Ok(None) => {}
                    Err(_) => return Err(ResolveError::Timeout),
                },
            }
        }
    }
}

impl Shared {
    /// Asks upstream and remembers the outcome.
    async fn ask(&self, key: &Key, deadline: Instant) -> Result<Resolved, ResolveError> {
        let (outcome, ttl) = match timeout_at(deadline, self.rounds(key)).await {
            Ok(Answer::Addresses { addresses, ttl }) => (Ok(addresses), clamp(ttl, TTL)),
            Ok(Answer::NotFound { ttl }) => (Err(ResolveError::NotFound), clamp(ttl, NEGATIVE_TTL)),
            Ok(Answer::NoAddress { ttl }) => (Err(ResolveError::NoAddress), clamp(ttl, NEGATIVE_TTL)),
            Ok(Answer::Truncated | Answer::Failed) => (Err(ResolveError::Failed), FAILURE_TTL),
            Err(_) => (Err(ResolveError::Timeout), FAILURE_TTL),
        };
        self.cache().keep(key.clone(), outcome.clone(), ttl, Instant::now());
        outcome.map(|addresses| Resolved { addresses, ttl })
    }

    /// Each resolver in order until one gives a usable answer; those that were silent once more, with more patience.
    /// Runs into the caller's deadline when all stay silent.
    async fn rounds(&self, (host, family): &Key) -> Answer {
        let Ok(_permit) = self.outstanding.acquire().await else { return Answer::Failed };
        let mut servers: Vec<SocketAddr> = self.servers.to_vec();
        let mut wait = self.patience.per_try;
        while !servers.is_empty() {
            let mut silent = Vec::new();
            for server in servers {
                match tokio::time::timeout(wait, upstream::ask(server, host, *family)).await {
                    Ok(Ok(Answer::Failed | Answer::Truncated)) => {}
                    Ok(Ok(answer)) => return answer,
                    Ok(Err(error)) => tracing::debug!(%server, %error, "resolver unusable"),
                    Err(_) => silent.push(server),
                }
            }
            servers = silent;
            wait *= 2;
        }
        Answer::Failed
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        // The cache is whole after every step, also if a thread panicked while it held the lock.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Family {
    /// The record type that carries this family.
    pub fn record_type(self) -> RecordType {
        match self {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::AAAA,
        }
    }
}

impl ResolveError {
    /// The reason word.
    pub fn reason(self) -> Reason {
        match self {
            ResolveError::NotFound | ResolveError::NoAddress => Reason::ResolveNotFound,
            ResolveError::Failed => Reason::ResolveFailed,
            ResolveError::Timeout => Reason::ResolveTimeout,
            ResolveError::Budget => Reason::DnsBudget,
        }
    }
}

impl Default for Patience {
    fn default() -> Self {
        Patience { per_try: Duration::from_secs(2), total: Duration::from_secs(5) }
    }
}

fn clamp(ttl: u32, range: std::ops::RangeInclusive<u32>) -> u32 {
    ttl.clamp(*range.start(), *range.end())
}

#[cfg(test)]
mod tests;
