//! What the application was told of names, and how many different ones it may ask for.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sidegate_policy::{HostName, set::RuleFacts};
use tokio::time::Instant;

/// Addresses that are remembered, the latest ones. A few hundred KiB at most.
const REMEMBERED_ADDRESSES: usize = 4096;
/// Names that are remembered of one address, the latest ones.
const NAMES_PER_ADDRESS: usize = 4;
/// The span of [`Names::admit`]'s budget.
const WINDOW: Duration = Duration::from_secs(60);

/// Shared by DNS and the connection pipeline, so that neither is a way around the other's budget.
#[derive(Debug)]
pub struct Names {
    budget: usize,
    windows: Mutex<HashMap<RuleKey, Window>>,
    given: Mutex<Given>,
}

/// A rule by its policy's name and its own.
type RuleKey = (Box<str>, Box<str>);

/// The different names that one rule let through since `start`.
#[derive(Debug)]
struct Window {
    start: Instant,
    names: HashSet<HostName>,
}

/// Which names led to an address lately; oldest address first in `order`.
#[derive(Debug, Default)]
struct Given {
    names: HashMap<IpAddr, VecDeque<HostName>>,
    order: VecDeque<IpAddr>,
}

impl Names {
    /// `budget`: different names per wildcard rule within a minute.
    pub fn new(budget: usize) -> Self {
        Names { budget, windows: Mutex::default(), given: Mutex::default() }
    }

    /// Whether a name that only a pattern of `rule` allows may still be asked upstream. Each new name takes from the
    /// rule's budget of this minute; a name that was admitted in it stays admitted. Data can leave in labels, one
    /// question each, and this bounds it: ask here before every question under a wildcard, whoever causes it.
    ///
    /// Policy and rule are told apart by name, so that a new policy generation gives no fresh budget.
    pub fn admit(&self, rule: &RuleFacts, host: &HostName) -> bool {
        let now = Instant::now();
        let mut windows = locked(&self.windows);
        let key = (rule.policy.clone(), rule.name.clone());
        if !windows.contains_key(&key) {
            windows.retain(|_, window| now.duration_since(window.start) < WINDOW);
        }
        let window = windows.entry(key).or_insert_with(|| Window { start: now, names: HashSet::new() });
        if now.duration_since(window.start) >= WINDOW {
            *window = Window { start: now, names: HashSet::new() };
        }
        if window.names.contains(host) {
            return true;
        }
        window.names.len() < self.budget && window.names.insert(host.clone())
    }

    /// Remembers that `host` led the application to `addresses`.
    pub fn remember(&self, host: &HostName, addresses: &[IpAddr]) {
        let mut given = locked(&self.given);
        for address in addresses {
            given.remember(host, *address);
        }
    }

    /// The names that lately led the application to an address, the latest last. For explanations only: an address
    /// never inherits a name's permission.
    pub fn recall(&self, address: IpAddr) -> Vec<HostName> {
        locked(&self.given)
            .names
            .get(&address)
            .map(|names| names.iter().cloned().collect())
            .unwrap_or_default()
    }
}

impl Default for Names {
    /// The default of [`crate::settings::Settings`].
    fn default() -> Self {
        Names::new(60)
    }
}

impl Given {
    fn remember(&mut self, host: &HostName, address: IpAddr) {
        if let Some(names) = self.names.get_mut(&address) {
            names.retain(|name| name != host);
            if names.len() >= NAMES_PER_ADDRESS {
                names.pop_front();
            }
            names.push_back(host.clone());
            return;
        }
        if self.order.len() >= REMEMBERED_ADDRESSES
            && let Some(oldest) = self.order.pop_front()
        {
            self.names.remove(&oldest);
        }
        self.order.push_back(address);
        self.names.insert(address, VecDeque::from([host.clone()]));
    }
}

/// The maps stay whole if a thread panicked while it held one: every step leaves them usable.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(n: usize) -> HostName {
        HostName::parse(&format!("n{n}.test")).unwrap()
    }

    fn address(n: usize) -> IpAddr {
        IpAddr::from(u32::try_from(n).unwrap().to_be_bytes())
    }

    #[test]
    fn the_latest_names_of_an_address_are_remembered() {
        let names = Names::default();
        for n in [0, 1, 2, 3, 4, 2] {
            names.remember(&host(n), &[address(7)]);
        }
        assert_eq!(names.recall(address(7)), [host(1), host(3), host(4), host(2)]);
        assert_eq!(names.recall(address(8)), []);
    }

    #[test]
    fn memory_is_bounded_and_drops_the_oldest() {
        let names = Names::default();
        for n in 0..REMEMBERED_ADDRESSES + 10 {
            names.remember(&host(n), &[address(n)]);
        }
        let given = locked(&names.given);
        assert_eq!((given.names.len(), given.order.len()), (REMEMBERED_ADDRESSES, REMEMBERED_ADDRESSES));
        drop(given);
        assert_eq!(names.recall(address(9)), []);
        assert_eq!(names.recall(address(10)), [host(10)]);
    }

    #[test]
    fn rules_have_budgets_of_their_own() {
        let names = Names::new(2);
        let rule = |name: &str| RuleFacts {
            policy: "shop".into(),
            name: name.into(),
            reason: None,
            place: ("policy.yaml".into(), 1),
        };
        assert!(names.admit(&rule("a"), &host(1)) && names.admit(&rule("a"), &host(2)));
        assert!(!names.admit(&rule("a"), &host(3)));
        assert!(names.admit(&rule("b"), &host(3)));
    }
}
