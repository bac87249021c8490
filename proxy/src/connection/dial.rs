//! Happy eyeballs: both address families, staggered attempts, the first that answers. RFC 8305.

use std::{
    collections::VecDeque,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use sidegate_policy::Reason;
use tokio::time::{Instant, sleep_until};

use super::connect::{ConnectError, dial_error, too_slow};
use crate::{
    addrs::UpstreamAddr,
    dns::{ResolveError, Resolved},
    limits::{DescriptorSlot, Limits},
};

/// Time between the starts of two attempts. RFC 8305 section 5, "Connection Attempt Delay".
const STAGGER: Duration = Duration::from_millis(250);
/// How long IPv4 addresses wait for the IPv6 answer. RFC 8305 section 3, "Resolution Delay".
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);
/// Addresses tried of one name; an answer may hold any number.
const MOST_ADDRESSES: usize = 16;

/// A question for the addresses of one family, under way.
pub(super) type Lookup<'a> = Pin<Box<dyn Future<Output = Result<Resolved, ResolveError>> + Send + 'a>>;
/// An attempt to connect, under way.
pub(crate) type Attempt<S> = Pin<Box<dyn Future<Output = io::Result<S>> + Send>>;

/// What a race runs over.
pub(super) struct Race<'a, S> {
    /// The name, for errors.
    pub(super) what: &'a str,
    pub(super) port: u16,
    /// Whether an address of the answer may be dialled.
    pub(super) judge: &'a (dyn Fn(IpAddr) -> Result<(), Reason> + Sync),
    pub(super) dial: &'a (dyn Fn(UpstreamAddr) -> Attempt<S> + Send + Sync),
    /// What a second attempt at the same time must find room in; the first has the connection's own.
    pub(super) limits: Option<&'a Arc<Limits>>,
    pub(super) deadline: Instant,
}

/// Asks for both families, judges each address, and dials them in turn (IPv6 first, families interleaved) until one
/// answers. Losing attempts are dropped.
///
/// # Errors
/// The last failed attempt, else the first refused address, else why the name has no address.
pub(super) async fn race<S>(
    race: Race<'_, S>,
    v6: Lookup<'_>,
    v4: Lookup<'_>,
) -> Result<(S, UpstreamAddr), ConnectError> {
    let mut lookups = [Some(v6), Some(v4)];
    let mut queue = Queue::default();
    let mut attempts: Vec<Started<S>> = Vec::new();
    let mut failures = Failures::default();
    let mut next_start = Instant::now();
    loop {
        if Instant::now() >= next_start && !queue.is_empty() {
            if let Some(slot) = race.room(attempts.len())
                && let Some(address) = queue.next()
            {
                attempts.push(Started { address, attempt: (race.dial)(address), _slot: slot });
            }
            next_start = Instant::now() + STAGGER;
        }
        let looking = lookups.iter().any(Option::is_some);
        if !looking && attempts.is_empty() && queue.is_empty() {
            return Err(failures.conclude(race.what));
        }
        tokio::select! {
            biased;
            (family, answer) = first_answer(&mut lookups), if looking => {
                match answer {
                    Ok(resolved) => queue.take(family, race.judged(resolved, &mut failures)),
                    Err(error) => failures.resolve(error),
                }
                if family == V4 && lookups[V6].is_some() && attempts.is_empty() {
                    next_start = Instant::now() + RESOLUTION_DELAY;
                } else if attempts.is_empty() {
                    next_start = Instant::now();
                }
            }
            (address, outcome) = first_outcome(&mut attempts), if !attempts.is_empty() => match outcome {
                Ok(stream) => return Ok((stream, address)),
                Err(error) => {
                    failures.dial = Some(dial_error(address, &error));
                    // No need to be patient with the next one.
                    next_start = Instant::now();
                }
            },
            () = sleep_until(next_start), if !queue.is_empty() => {}
            () = sleep_until(race.deadline) => return Err(match attempts.last() {
                Some(Started { address, .. }) => too_slow(&address.to_string()),
                None => ConnectError::new(Reason::ResolveTimeout, format!("{}: no answer in time", race.what)),
            }),
        }
    }
}

const V6: usize = 0;
const V4: usize = 1;

/// Addresses still to be tried, by family.
#[derive(Default)]
struct Queue {
    families: [VecDeque<UpstreamAddr>; 2],
    turn: usize,
    taken: usize,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.families.iter().all(VecDeque::is_empty)
    }

    /// The next address; the families take turns while both have some.
    fn next(&mut self) -> Option<UpstreamAddr> {
        let (turn, other) = (self.turn, 1 - self.turn);
        let (family, address) = match self.families[turn].pop_front() {
            Some(address) => (turn, address),
            None => (other, self.families[other].pop_front()?),
        };
        self.turn = 1 - family;
        Some(address)
    }

    fn take(&mut self, family: usize, addresses: Vec<UpstreamAddr>) {
        let room = MOST_ADDRESSES.saturating_sub(self.taken);
        for address in addresses.into_iter().take(room) {
            self.taken += 1;
            self.families[family].push_back(address);
        }
    }
}

/// An attempt under way, and its descriptor.
struct Started<S> {
    address: UpstreamAddr,
    attempt: Attempt<S>,
    _slot: Option<DescriptorSlot>,
}

impl<S> Race<'_, S> {
    /// Room for an attempt beside those under way; `None`: none now.
    fn room(&self, under_way: usize) -> Option<Option<DescriptorSlot>> {
        match self.limits {
            Some(limits) if under_way > 0 => limits.attempt().map(Some),
            _ => Some(None),
        }
    }

    /// The addresses of an answer that may be dialled.
    fn judged(&self, answer: Resolved, failures: &mut Failures) -> Vec<UpstreamAddr> {
        let mut allowed = Vec::new();
        for address in answer.addresses {
            match (self.judge)(address) {
                Ok(()) => allowed.push(UpstreamAddr::new(SocketAddr::new(address, self.port))),
                Err(reason) => {
                    failures.refused.get_or_insert((reason, address));
                }
            }
        }
        allowed
    }
}

/// Everything that went wrong, so that the most telling failure is reported.
#[derive(Default)]
struct Failures {
    dial: Option<ConnectError>,
    refused: Option<(Reason, IpAddr)>,
    resolve: Option<ResolveError>,
}

impl Failures {
    /// A resolver's failure says more than the absence of one family.
    fn resolve(&mut self, error: ResolveError) {
        let telling =
            |error: &ResolveError| !matches!(error, ResolveError::NotFound | ResolveError::NoAddress);
        if self.resolve.as_ref().is_none_or(|known| !telling(known)) {
            self.resolve = Some(error);
        }
    }

    fn conclude(self, what: &str) -> ConnectError {
        if let Some(dial) = self.dial {
            return dial;
        }
        if let Some((reason, address)) = self.refused {
            return ConnectError::new(reason, format!("{what} leads to {address}"));
        }
        let error = self.resolve.unwrap_or(ResolveError::NoAddress);
        ConnectError::new(error.reason(), format!("{what}: {error}"))
    }
}

async fn first_answer(lookups: &mut [Option<Lookup<'_>>; 2]) -> (usize, Result<Resolved, ResolveError>) {
    std::future::poll_fn(|cx| {
        for (family, lookup) in lookups.iter_mut().enumerate() {
            let Some(asking) = lookup else { continue };
            if let Poll::Ready(answer) = asking.as_mut().poll(cx) {
                *lookup = None;
                return Poll::Ready((family, answer));
            }
        }
        Poll::Pending
    })
    .await
}

async fn first_outcome<S>(attempts: &mut Vec<Started<S>>) -> (UpstreamAddr, io::Result<S>) {
    std::future::poll_fn(|cx| {
        for place in 0..attempts.len() {
            if let Poll::Ready(outcome) = attempts[place].attempt.as_mut().poll(cx) {
                return Poll::Ready((attempts.remove(place).address, outcome));
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests;
