//! Connections by whom they join: our own certificate, the peer that was expected, and where it was reached. Nothing
//! is ever sent on a connection that was made for another.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use h2::client::SendRequest;
use sidegate_policy::SpiffeId;

use super::h2_settings::STREAMS;
use crate::addrs::UpstreamAddr;

/// Whom a connection joins.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// Which of our certificates was shown.
    pub(super) epoch: u64,
    /// Whom we expected.
    pub(super) peer: SpiffeId,
    pub(super) address: UpstreamAddr,
}

/// What a connection carries.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// Streams that are open.
    streams: AtomicUsize,
    /// Streams that were ever opened.
    opened: AtomicU64,
    /// The peer had to go: its streams say so instead of what HTTP/2 makes of it.
    pub(super) dismissed: AtomicBool,
}

impl Load {
    /// How many streams were ever opened; `None`: none is open, and none was since there were `opened`.
    pub(super) fn used_since(&self, opened: u64) -> Option<u64> {
        let now = self.opened.load(Relaxed);
        (now != opened || self.streams.load(Relaxed) > 0).then_some(now)
    }
}

/// Room for one stream of a connection, until dropped.
#[derive(Debug)]
pub(super) struct Lease(Arc<Load>);

impl Lease {
    fn new(load: &Arc<Load>) -> Self {
        load.streams.fetch_add(1, Relaxed);
        load.opened.fetch_add(1, Relaxed);
        Lease(Arc::clone(load))
    }

    pub(super) fn load(&self) -> &Arc<Load> {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Relaxed);
    }
}

/// A connection that takes a stream now.
pub(super) struct Leased {
    pub(super) sender: SendRequest<Bytes>,
    pub(super) lease: Lease,
}

/// The connections that take streams. One that is taken out ends when its last stream does.
#[derive(Default)]
pub(super) struct Pool(Mutex<HashMap<Key, Slot>>);

#[derive(Default)]
struct Slot {
    ready: Vec<(SendRequest<Bytes>, Arc<Load>)>,
    /// One handshake at a time: the others wait for it, and most find room on what it made.
    dialling: Arc<tokio::sync::Mutex<()>>,
}

impl Slot {
    fn unused(&self) -> bool {
        self.ready.is_empty() && Arc::strong_count(&self.dialling) == 1
    }
}

impl Pool {
    /// Room on a connection that is there.
    pub(super) fn lease(&self, key: &Key) -> Option<Leased> {
        let mut slots = self.lock();
        let slot = slots.get_mut(key)?;
        // A connection that the peer has closed, or asked us to leave, takes no more.
        slot.ready.retain_mut(|(sender, _)| !matches!(poll_ready(sender), Poll::Ready(Err(_))));
        let (sender, load) = slot.ready.iter_mut().find(|(sender, load)| has_room(sender, load))?;
        Some(Leased { sender: sender.clone(), lease: Lease::new(load) })
    }

    /// Who may dial for `key` now: whoever holds its lock.
    pub(super) fn turn<'a>(&'a self, key: &'a Key) -> Turn<'a> {
        let lock = Arc::clone(&self.lock().entry(key.clone()).or_default().dialling);
        Turn { pool: self, key, lock: Some(lock) }
    }

    /// Takes a connection in, with room for its first stream.
    pub(super) fn keep(&self, key: &Key, sender: SendRequest<Bytes>, load: &Arc<Load>) -> Leased {
        let mut slots = self.lock();
        slots.entry(key.clone()).or_default().ready.push((sender.clone(), Arc::clone(load)));
        Leased { sender, lease: Lease::new(load) }
    }

    /// Takes a connection out.
    pub(super) fn retire(&self, key: &Key, load: &Arc<Load>) {
        let mut slots = self.lock();
        if let Some(slot) = slots.get_mut(key) {
            slot.ready.retain(|(_, other)| !Arc::ptr_eq(other, load));
        }
        sweep(&mut slots, key);
    }

    /// Takes out a connection that is unused still since `opened` streams had been opened on it.
    pub(super) fn retire_unused(&self, key: &Key, load: &Arc<Load>, opened: u64) {
        // Streams are opened under the same lock.
        let mut slots = self.lock();
        if let Some(slot) = slots.get_mut(key).filter(|_| load.used_since(opened).is_none()) {
            slot.ready.retain(|(_, other)| !Arc::ptr_eq(other, load));
        }
        sweep(&mut slots, key);
    }

    /// Takes out the connections that show another certificate of ours than that of `epoch`.
    pub(super) fn retire_other_epochs(&self, epoch: u64) {
        self.lock().retain(|key, slot| {
            if key.epoch != epoch {
                slot.ready.clear();
            }
            !slot.unused()
        });
    }

    /// How many connections take streams.
    pub(super) fn len(&self) -> usize {
        self.lock().values().map(|slot| slot.ready.len()).sum()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A wish to dial. A key for which nobody has one, and no connection, is forgotten.
pub(super) struct Turn<'a> {
    pool: &'a Pool,
    key: &'a Key,
    /// Until dropped.
    lock: Option<Arc<tokio::sync::Mutex<()>>>,
}

impl Turn<'_> {
    /// Waits for those who dial already.
    pub(super) async fn come(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        Some(self.lock.as_ref()?.lock().await)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.lock = None;
        sweep(&mut self.pool.lock(), self.key);
    }
}

fn sweep(slots: &mut HashMap<Key, Slot>, key: &Key) {
    if slots.get(key).is_some_and(Slot::unused) {
        slots.remove(key);
    }
}

fn poll_ready(sender: &mut SendRequest<Bytes>) -> Poll<Result<(), h2::Error>> {
    sender.poll_ready(&mut Context::from_waker(Waker::noop()))
}

fn has_room(sender: &SendRequest<Bytes>, load: &Load) -> bool {
    load.streams.load(Relaxed) < STREAMS.min(sender.current_max_send_streams())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sender() -> (SendRequest<Bytes>, impl Sized) {
        let (near, far) = tokio::io::duplex(4096);
        let (sender, connection) = h2::client::handshake(near).await.unwrap();
        (sender, (connection, far))
    }

    fn key(epoch: u64) -> Key {
        let peer = SpiffeId::parse("spiffe://example.org/server").unwrap();
        Key { epoch, peer, address: UpstreamAddr::new("10.0.0.7:15008".parse().unwrap()) }
    }

    #[tokio::test]
    async fn only_what_nobody_used_is_retired() {
        let (pool, key) = (Pool::default(), key(1));
        let (sender, _connection) = sender().await;
        let load = Arc::new(Load::default());
        let first = pool.keep(&key, sender, &load);
        pool.retire_unused(&key, &load, 1);
        assert_eq!(pool.len(), 1, "a stream is open");
        drop(first);
        pool.retire_unused(&key, &load, 0);
        assert_eq!(pool.len(), 1, "one was, since");
        drop(pool.lease(&key).unwrap());
        pool.retire_unused(&key, &load, 1);
        assert_eq!(pool.len(), 1, "another was");
        pool.retire_unused(&key, &load, 2);
        assert!(pool.lock().is_empty());
    }

    #[tokio::test]
    async fn keys_without_connections_are_forgotten() {
        let pool = Pool::default();
        let keys = [key(1), key(2)];
        let turns = (pool.turn(&keys[0]), pool.turn(&keys[1]));
        pool.retire_other_epochs(2);
        assert_eq!(pool.lock().len(), 2, "somebody dials");
        drop(turns);
        assert!(pool.lock().is_empty());
    }

    #[tokio::test]
    async fn each_epoch_has_its_own() {
        let pool = Pool::default();
        let (sender, _connection) = sender().await;
        drop(pool.keep(&key(1), sender, &Arc::new(Load::default())));
        assert!(pool.lease(&key(2)).is_none() && pool.lease(&key(1)).is_some());
        pool.retire_other_epochs(2);
        assert!(pool.lease(&key(1)).is_none());
    }
}
