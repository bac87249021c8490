//! Questions under way: whoever comes first asks, the others wait for the same answer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::watch;

use super::{Key, ResolveError, Resolved};

type Outcome = Result<Resolved, ResolveError>;
type Landing = watch::Sender<Option<Outcome>>;

/// All questions under way. Nothing in it belongs to one runtime: workers wait for each other's questions.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<Key, Weak<Landing>>>);

/// How to take part in a question.
pub(super) enum Seat<'f> {
    /// Nobody asks yet: ask, then [`Pilot::land`].
    Pilot(Pilot<'f>),
    /// Somebody asks already.
    Passenger(Passenger),
}

/// The duty to ask. Dropped without landing (the task was cancelled), it lets a passenger take over.
pub(super) struct Pilot<'f> {
    flights: &'f Flights,
    key: Key,
    landing: Arc<Landing>,
}

/// A wait for somebody else's answer.
pub(super) struct Passenger(watch::Receiver<Option<Outcome>>);

impl Flights {
    /// Joins the question under way, or starts it.
    pub(super) fn board(&self, key: &Key) -> Seat<'_> {
        let mut flights = self.locked();
        if let Some(landing) = flights.get(key).and_then(Weak::upgrade) {
            return Seat::Passenger(Passenger(landing.subscribe()));
        }
        let landing = Arc::new(watch::Sender::new(None));
        flights.insert(key.clone(), Arc::downgrade(&landing));
        Seat::Pilot(Pilot { flights: self, key: key.clone(), landing })
    }

    /// Whether nothing is asked and nothing is kept.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.locked().is_empty()
    }

    /// How many wait for the question under way.
    #[cfg(test)]
    pub(super) fn passengers(&self, key: &Key) -> usize {
        self.locked().get(key).and_then(Weak::upgrade).map_or(0, |landing| landing.receiver_count())
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<Key, Weak<Landing>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pilot<'_> {
    /// Tells every passenger. The cache must know the outcome already, so that whoever comes now need not ask.
    pub(super) fn land(self, outcome: Outcome) {
        self.landing.send_replace(Some(outcome));
    }
}

impl Drop for Pilot<'_> {
    fn drop(&mut self) {
        self.flights.locked().remove(&self.key);
    }
}

impl Passenger {
    /// The outcome; `None` if whoever asked gave up.
    pub(super) async fn landed(&mut self) -> Option<Outcome> {
        self.0.wait_for(Option::is_some).await.ok()?.clone()
    }
}
