//! Who may be served at once by a probe or admin server: bounded in total and for each source, so that one outsider can't
//! keep the probes of others out.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// Connections from other hosts in total.
const OUTSIDERS: usize = 64;
/// Connections from one other host.
const ONE_OUTSIDER: usize = 8;
/// Connections from this host (its health check, the admin socket), apart from all others.
const INSIDERS: usize = 32;

/// The connections that are being served.
#[derive(Debug, Default)]
pub(super) struct Guests {
    outsiders: BTreeMap<IpAddr, usize>,
    insiders: usize,
}

/// One of them; it leaves when dropped.
#[derive(Debug)]
pub(super) struct Guest {
    of: Arc<Mutex<Guests>>,
    outsider: Option<IpAddr>,
}

impl Guests {
    /// Lets a connection in. `None`: there is no room for its source; it is to be closed at once.
    pub(super) fn admit(all: &Arc<Mutex<Guests>>, source: Option<IpAddr>) -> Option<Guest> {
        let outsider = source.map(|ip| ip.to_canonical()).filter(|ip| !ip.is_loopback());
        let mut guests = all.lock().unwrap_or_else(PoisonError::into_inner);
        match outsider {
            None if guests.insiders >= INSIDERS => return None,
            None => guests.insiders += 1,
            Some(ip) => {
                let here = guests.outsiders.get(&ip).copied().unwrap_or(0);
                if here >= ONE_OUTSIDER || guests.outsiders.values().sum::<usize>() >= OUTSIDERS {
                    return None;
                }
                guests.outsiders.insert(ip, here + 1);
            }
        }
        Some(Guest { of: Arc::clone(all), outsider })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut guests = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(ip) = self.outsider else {
            guests.insiders -= 1;
            return;
        };
        match guests.outsiders.get_mut(&ip) {
            Some(here) if *here > 1 => *here -= 1,
            _ => drop(guests.outsiders.remove(&ip)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_source_keeps_another_out() {
        let all = Arc::default();
        let from = |last: u8| Some(IpAddr::from([192, 0, 2, last]));
        let greedy: Vec<_> = (0..100).filter_map(|_| Guests::admit(&all, from(1))).collect();
        assert_eq!(greedy.len(), ONE_OUTSIDER);
        let other = Guests::admit(&all, from(2));
        assert!(other.is_some());
        let crowd: Vec<_> = (3..=200).filter_map(|last| Guests::admit(&all, from(last))).collect();
        assert_eq!(greedy.len() + 1 + crowd.len(), OUTSIDERS);
        assert!(Guests::admit(&all, from(201)).is_none());
        for inside in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(Guests::admit(&all, inside.parse().ok()).is_some(), "{inside} has room of its own");
        }
        assert!(Guests::admit(&all, None).is_some(), "and so has the admin socket");
        drop((greedy, other, crowd));
        assert!(Guests::admit(&all, from(1)).is_some());
        assert!(all.lock().unwrap().outsiders.is_empty(), "nobody is remembered who has left");
    }
}
