//! The current policy set, swapped whole, and the news that it changed.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use sidegate_policy::{Generation, PolicySet};
use tokio::sync::watch;

/// Holds the set that judges now. Cheap to read from every thread; replaced whole.
#[derive(Debug)]
pub struct PolicyStore {
    current: ArcSwap<PolicySet>,
    changed: watch::Sender<Generation>,
}

impl PolicyStore {
    /// A store that starts with `first`.
    pub fn new(first: PolicySet) -> Self {
        crate::metrics::generation(first.generation());
        let (changed, _) = watch::channel(first.generation());
        PolicyStore { current: ArcSwap::from_pointee(first), changed }
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

    /// News of replacements. Subscribe first, judge second.
    pub fn subscribe(&self) -> watch::Receiver<Generation> {
        self.changed.subscribe()
    }
}
