//! How many connections may live: in total, from one source, and within the process's descriptors.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sidegate_policy::Reason;

use crate::{http::budgets::Budgets, settings::Settings};

/// Descriptors of one connection: the client's socket and the one towards the far end.
const PER_CONNECTION: usize = 2;

/// Descriptors of a pipe: its two ends.
const PER_PIPE: usize = 2;

/// DNS streams get this part of the reserve, and half of this part of the rest. So do questions to resolvers, of the
/// reserve; of the rest half as much.
const STREAM_SHARE: usize = 4;
/// Most that DNS streams get of the rest.
const MOST_STREAMS: usize = 512;
/// Of the connections, those from outside of which nothing is known yet get this part, so that they can't crowd out others;
/// and of that, those from one source get this part.
const STRANGERS_SHARE: usize = 2;
const STRANGERS_OF_ONE_SHARE: usize = 16;
/// Most questions that wait for resolvers at once; each holds a descriptor.
pub(crate) const MOST_QUESTIONS: usize = 512;

/// Counts what lives, over all workers.
#[derive(Debug)]
pub struct Limits {
    connections: Allowance,
    descriptors: Allowance,
    /// For DNS streams alone: they can't crowd out connections, nor those them.
    streams: Allowance,
    questions: usize,
    sources: Sources,
    /// Connections from outside that have neither proven nor shown anything yet.
    strangers: Allowance,
    strange_sources: Sources,
    /// Requests that rules still let pass.
    pub(crate) requests: Budgets,
}

impl Limits {
    /// Limits for a process whose other descriptors are open already: what the kernel grants, less those,
    /// less the reserve.
    pub(crate) fn new(settings: &Settings) -> Self {
        let granted = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |most| most as usize);
        let budget = granted.saturating_sub(open_descriptors() + settings.descriptor_reserve);
        Self::with_descriptors(settings, budget)
    }

    /// As [`Limits::new`], with a stated budget of descriptors.
    pub(crate) fn with_descriptors(settings: &Settings, budget: usize) -> Self {
        let for_streams = (budget / (2 * STREAM_SHARE)).min(MOST_STREAMS);
        let for_questions = (budget / (4 * STREAM_SHARE)).min(MOST_QUESTIONS);
        let reserved = settings.descriptor_reserve / STREAM_SHARE;
        let strangers = (settings.connections / STRANGERS_SHARE).max(1);
        Limits {
            connections: Allowance::new(settings.connections),
            descriptors: Allowance::new(budget - for_streams - for_questions),
            streams: Allowance::new(for_streams + reserved),
            questions: (for_questions + reserved).clamp(1, MOST_QUESTIONS),
            sources: Sources::new(settings.connections_per_source),
            strangers: Allowance::new(strangers),
            strange_sources: Sources::new((strangers / STRANGERS_OF_ONE_SHARE).max(1)),
            requests: Budgets::new(),
        }
    }

    /// Room for one connection from `source`, or the limit that is reached.
    pub(crate) fn connection(self: &Arc<Self>, source: IpAddr) -> Result<ConnectionSlot, Reason> {
        if !self.connections.take(1) {
            return Err(Reason::LimitConnections);
        }
        if !self.descriptors.take(PER_CONNECTION) {
            self.connections.give_back(1);
            return Err(Reason::LimitDescriptors);
        }
        if !self.sources.take(source) {
            self.connections.give_back(1);
            self.descriptors.give_back(PER_CONNECTION);
            return Err(Reason::LimitSource);
        }
        Ok(ConnectionSlot { limits: Arc::clone(self), source })
    }

    /// Room for a connection from outside while nothing is known of it, or the limit that is reached.
    pub(crate) fn stranger(self: &Arc<Self>, source: IpAddr) -> Result<StrangerSlot, Reason> {
        if !self.strangers.take(1) {
            return Err(Reason::LimitConnections);
        }
        if !self.strange_sources.take(source) {
            self.strangers.give_back(1);
            return Err(Reason::LimitSource);
        }
        Ok(StrangerSlot { limits: Arc::clone(self), source })
    }

    /// Room for a pipe, which splices bytes.
    pub(crate) fn pipe(self: &Arc<Self>) -> Option<DescriptorSlot> {
        self.slot(PER_PIPE, |limits| &limits.descriptors)
    }

    /// Room for one more attempt of a connection that is attempting already.
    pub(crate) fn attempt(self: &Arc<Self>) -> Option<DescriptorSlot> {
        self.slot(1, |limits| &limits.descriptors)
    }

    /// Room for a DNS stream.
    pub(crate) fn stream(self: &Arc<Self>) -> Option<DescriptorSlot> {
        self.slot(1, |limits| &limits.streams)
    }

    /// How many questions may wait for resolvers at once. One has room whatever there is: without it nothing is reached.
    pub(crate) fn questions(&self) -> usize {
        self.questions
    }

    fn slot(self: &Arc<Self>, count: usize, pot: fn(&Limits) -> &Allowance) -> Option<DescriptorSlot> {
        pot(self).take(count).then(|| DescriptorSlot { limits: Arc::clone(self), count, pot })
    }
}

/// Room for one connection; its drop makes room for the next.
#[derive(Debug)]
pub(crate) struct ConnectionSlot {
    limits: Arc<Limits>,
    source: IpAddr,
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.limits.sources.give_back(self.source);
        self.limits.descriptors.give_back(PER_CONNECTION);
        self.limits.connections.give_back(1);
    }
}

/// Room for a connection of which nothing is known; dropped once something is.
#[derive(Debug)]
pub(crate) struct StrangerSlot {
    limits: Arc<Limits>,
    source: IpAddr,
}

impl Drop for StrangerSlot {
    fn drop(&mut self) {
        self.limits.strange_sources.give_back(self.source);
        self.limits.strangers.give_back(1);
    }
}

/// Room for descriptors beside those that every connection has.
#[derive(Debug)]
pub(crate) struct DescriptorSlot {
    limits: Arc<Limits>,
    count: usize,
    pot: fn(&Limits) -> &Allowance,
}

impl Drop for DescriptorSlot {
    fn drop(&mut self) {
        (self.pot)(&self.limits).give_back(self.count);
    }
}

/// How many each source may have.
#[derive(Debug)]
struct Sources {
    most: usize,
    live: Mutex<HashMap<IpAddr, usize>>,
}

impl Sources {
    fn new(most: usize) -> Self {
        Sources { most, live: Mutex::default() }
    }

    fn take(&self, source: IpAddr) -> bool {
        let mut sources = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let live = sources.entry(source).or_default();
        let free = *live < self.most;
        *live += usize::from(free);
        free
    }

    fn give_back(&self, source: IpAddr) {
        let mut sources = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(live) = sources.get_mut(&source) {
            *live -= 1;
            if *live == 0 {
                sources.remove(&source);
            }
        }
    }
}

/// A number of equal things, counted without a lock.
#[derive(Debug)]
struct Allowance {
    taken: AtomicUsize,
    most: usize,
}

impl Allowance {
    fn new(most: usize) -> Self {
        Allowance { taken: AtomicUsize::new(0), most }
    }

    fn take(&self, count: usize) -> bool {
        let room = |taken: usize| taken.checked_add(count).filter(|after| *after <= self.most);
        self.taken.fetch_update(Relaxed, Relaxed, room).is_ok()
    }

    fn give_back(&self, count: usize) {
        self.taken.fetch_sub(count, Relaxed);
    }
}

/// Raises the soft limit of descriptors to the hard one and returns it. Call before workers start and after any
/// command that should keep the old limit was started.
///
/// # Errors
/// The kernel refuses the change.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// Descriptors open now; 0 where /proc is absent, which the reserve then covers.
fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn limits(connections: usize, per_source: usize, descriptors: usize) -> Arc<Limits> {
        let settings = Settings { connections, connections_per_source: per_source, ..Settings::default() };
        Arc::new(Limits::with_descriptors(&settings, descriptors))
    }

    #[test]
    fn each_limit_has_its_reason() {
        for (limits, reason) in [
            (limits(1, 9, 99), Reason::LimitConnections),
            (limits(9, 1, 99), Reason::LimitSource),
            (limits(9, 9, 3), Reason::LimitDescriptors),
        ] {
            let slot = limits.connection(SOURCE).expect("the first fits");
            assert_eq!(limits.connection(SOURCE).unwrap_err(), reason);
            drop(slot);
            limits.connection(SOURCE).expect("room again");
        }
    }

    #[test]
    fn one_source_does_not_use_up_another() {
        let limits = limits(9, 1, 99);
        let _one = limits.connection(SOURCE).unwrap();
        limits.connection(OTHER).unwrap();
    }

    /// All that opens descriptors on behalf of a workload shares what there is, and leaves half of the reserve.
    #[test]
    fn the_parts_are_no_more_than_the_whole() {
        let settings = Settings::default();
        for budget in [0, 1, 7, 16, 100, 960, 4032, 100_000, usize::MAX / 2] {
            let limits = Limits::with_descriptors(&settings, budget);
            let given = limits.descriptors.most + limits.streams.most + limits.questions();
            assert!(given <= budget + settings.descriptor_reserve / 2, "{given} of {budget}");
            assert!(limits.questions() > 0);
        }
    }

    #[test]
    fn strangers_of_one_source_leave_room_for_those_of_another_and_all_of_them_for_others() {
        let limits = limits(64, 64, 999);
        let _of_one = [limits.stranger(SOURCE).unwrap(), limits.stranger(SOURCE).unwrap()];
        assert_eq!(limits.stranger(SOURCE).unwrap_err(), Reason::LimitSource);
        let others = (3..).map(|last| limits.stranger(IpAddr::from([10, 0, 1, last])));
        let others: Vec<_> = others.take_while(Result::is_ok).collect();
        assert_eq!(others.len(), 30, "half of the connections");
        assert_eq!(limits.stranger(OTHER).unwrap_err(), Reason::LimitConnections);
        limits.connection(OTHER).unwrap();
        drop(others);
        limits.stranger(OTHER).unwrap();
    }

    #[test]
    fn a_refusal_takes_nothing() {
        let limits = limits(9, 1, 99);
        let slot = limits.connection(SOURCE).unwrap();
        for _ in 0..100 {
            limits.connection(SOURCE).unwrap_err();
        }
        drop(slot);
        assert_eq!(limits.connections.taken.load(Relaxed), 0);
        assert_eq!(limits.descriptors.taken.load(Relaxed), 0);
        assert!(limits.sources.live.lock().unwrap().is_empty());
    }
}
