//! Who is connected, so that a peer who must go is gone at once.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sidegate_policy::SpiffeId;
use tokio::sync::oneshot;

/// How many dismissals are remembered for handshakes that were under way.
const REMEMBERED: usize = 1024;

/// The connections of the mesh, both ways and of all workers.
#[derive(Debug, Default)]
pub struct Roster(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    connected: HashMap<u64, (SpiffeId, oneshot::Sender<()>)>,
    /// How many dismissals there were.
    dismissals: u64,
    /// The last of them.
    dismissed: VecDeque<SpiffeId>,
}

impl Roster {
    /// Nobody.
    pub fn new() -> Self {
        Roster::default()
    }

    /// Ends every connection with `peer` at once, its streams with it, and those whose handshake is under way. Returns
    /// how many were established. Trust and policy are replaced first: a peer may come back at once.
    pub fn close_peer(&self, peer: &SpiffeId) -> usize {
        let mut entries = self.lock();
        entries.dismissals += 1;
        if entries.dismissed.len() == REMEMBERED {
            entries.dismissed.pop_front();
        }
        entries.dismissed.push_back(peer.clone());
        let gone = entries.connected.extract_if(|_, (id, _)| id == peer);
        gone.filter_map(|(_, (_, told))| told.send(()).ok()).count()
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.lock().connected.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The moment before a handshake, for [`Roster::enter`].
    pub(super) fn now(&self) -> u64 {
        self.lock().dismissals
    }

    /// Enters a peer whose handshake began at `since`; `None`: it was dismissed since.
    pub(super) fn enter(self: &Arc<Self>, peer: &SpiffeId, since: u64) -> Option<Entry> {
        let mut entries = self.lock();
        let passed = usize::try_from(entries.dismissals - since).unwrap_or(usize::MAX);
        // What is no longer remembered may have been this one.
        if passed > entries.dismissed.len()
            || entries.dismissed.iter().rev().take(passed).any(|id| id == peer)
        {
            return None;
        }
        let (told, dismissed) = oneshot::channel();
        let id = entries.next;
        entries.next += 1;
        entries.connected.insert(id, (peer.clone(), told));
        Some(Entry { roster: Arc::clone(self), id, dismissed })
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is on the roster, until this is dropped.
#[derive(Debug)]
pub(super) struct Entry {
    roster: Arc<Roster>,
    id: u64,
    dismissed: oneshot::Receiver<()>,
}

impl Entry {
    /// Returns when the peer must go.
    pub(super) async fn dismissed(&mut self) {
        // The sender goes only after it has told.
        let _ = (&mut self.dismissed).await;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.roster.lock().connected.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://example.org/{name}")).unwrap()
    }

    #[tokio::test]
    async fn a_peer_is_dismissed_and_others_stay() {
        let roster = Arc::new(Roster::new());
        let (mut first, second) = (roster.enter(&id("a"), 0).unwrap(), roster.enter(&id("b"), 0).unwrap());
        assert_eq!(roster.close_peer(&id("a")), 1);
        first.dismissed().await;
        assert_eq!((roster.len(), roster.close_peer(&id("a"))), (1, 0));
        drop((first, second));
        assert!(roster.is_empty());
    }

    #[test]
    fn who_is_dismissed_during_the_handshake_does_not_come_in() {
        let roster = Arc::new(Roster::new());
        let since = roster.now();
        roster.close_peer(&id("a"));
        assert!(roster.enter(&id("a"), since).is_none());
        assert!(roster.enter(&id("b"), since).is_some(), "somebody else");
        assert!(roster.enter(&id("a"), roster.now()).is_some(), "a handshake that began after");
    }

    #[test]
    fn what_is_forgotten_counts_as_dismissed() {
        let roster = Arc::new(Roster::new());
        let since = roster.now();
        roster.close_peer(&id("a"));
        for _ in 0..REMEMBERED {
            roster.close_peer(&id("b"));
        }
        assert!(roster.enter(&id("a"), since).is_none());
        assert!(roster.enter(&id("a"), since + 1).is_some());
    }
}
