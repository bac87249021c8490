//! What verdicts rest on: the policy set and the peers of the moment, each swapped whole, and the news that one changed.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use sidegate_policy::{Generation, PolicySet};
use tokio::sync::watch;

use crate::peers::Peers;

/// Holds the set that judges now and the peers that are known. Cheap to read from every thread; replaced whole.
#[derive(Debug)]
pub struct PolicyStore {
    current: ArcSwap<PolicySet>,
    peers: ArcSwap<Peers>,
    changed: watch::Sender<Generation>,
}

impl PolicyStore {
    /// A store that starts with `first` and without peers.
    pub fn new(first: PolicySet) -> Self {
        crate::metrics::generation(first.generation());
        let (changed, _) = watch::channel(first.generation());
        PolicyStore { current: ArcSwap::from_pointee(first), peers: ArcSwap::default(), changed }
    }

    /// The set that judges now. Hold it only for one judgement.
    pub fn current(&self) -> Guard<Arc<PolicySet>> {
        self.current.load()
    }

    /// Replaces the set, then tells every subscriber. Subscribers that registered before they judged can't miss it.
    pub fn replace(&self, next: PolicySet) {
        let generation = next.generation();
        self.current.store(Arc::new(next));
        crate::metrics::generation(generation);
        self.changed.send_replace(generation);
    }

    /// Which workloads are known to be where. Hold it only for one judgement.
    pub fn peers(&self) -> Guard<Arc<Peers>> {
        self.peers.load()
    }

    /// Replaces the peers, then tells every subscriber: who lives is judged again.
    pub fn replace_peers(&self, next: Peers) {
        self.peers.store(Arc::new(next));
        self.changed.send_modify(|_| ());
    }

    /// News of replacements. Subscribe first, judge second.
    pub fn subscribe(&self) -> watch::Receiver<Generation> {
        self.changed.subscribe()
    }
}
