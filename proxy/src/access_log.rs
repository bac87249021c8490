//! Where access records go: bounded, never blocking the data path, with counted drops.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use sidegate_api::AccessRecord;

mod json_lines;
#[cfg(test)]
mod tests;

pub use json_lines::JsonLines;

/// A destination of records: a file, standard output, the summary of `sidegate run`.
/// Called on one dedicated thread, in order.
pub trait Sink: Send {
    /// Takes one record.
    fn record(&mut self, record: &AccessRecord);
    /// Called when the queue is empty for now, and at the end.
    fn flush(&mut self) {}
}

/// Records that may wait for the sinks before new ones are dropped.
const CAPACITY: usize = 8192;

/// How long the thread lets records gather once the first has arrived: one wake-up serves a whole batch.
const GATHER: Duration = Duration::from_millis(5);

/// The queue to the sinks. Cheap to clone; when the last clone is gone the thread writes what is left and ends.
#[derive(Clone, Debug)]
pub struct AccessLog {
    writer: Arc<Writer>,
}

impl AccessLog {
    /// Starts the thread that feeds the sinks.
    ///
    /// # Panics
    /// The system has no thread to give; only at start.
    pub fn start(sinks: Vec<Box<dyn Sink>>) -> Self {
        Self::with_capacity(sinks, CAPACITY)
    }

    /// As [`AccessLog::start`], with room for `capacity` waiting records.
    fn with_capacity(sinks: Vec<Box<dyn Sink>>, capacity: usize) -> Self {
        let queue = Arc::new(Queue { capacity, ..Queue::default() });
        let feeding = Arc::clone(&queue);
        thread::Builder::new()
            .name("access-log".into())
            .spawn(move || Feeder { queue: feeding, sinks, drops_told: 0 }.run())
            .expect("a thread at start");
        AccessLog { writer: Arc::new(Writer { queue }) }
    }

    /// Hands over one record; when the queue is full the record is dropped and counted
    /// (`sidegate_access_records_dropped_total`). Never waits for a sink.
    pub fn write(&self, record: AccessRecord) {
        self.writer.queue.push(record);
    }

    /// Records dropped so far because the sinks were slower than the traffic.
    pub fn dropped(&self) -> u64 {
        self.writer.queue.lock().dropped
    }

    /// Waits until every record written so far has reached the sinks and flushes them. Used at exit.
    pub fn finish(&self) {
        self.writer.queue.finish(None);
    }

    /// As [`AccessLog::finish`], but no longer than `patience`: a sink may be stuck (a pipe that nobody reads). True:
    /// all of them arrived.
    pub fn finish_within(&self, patience: Duration) -> bool {
        self.writer.queue.finish(Some(Instant::now() + patience))
    }
}

/// The sending end; its drop tells the thread that nothing more will come.
#[derive(Debug)]
struct Writer {
    queue: Arc<Queue>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.news.notify_all();
    }
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    /// Tells the thread: records, or a wish to finish.
    news: Condvar,
    /// Tells whoever finishes: a batch reached the sinks.
    delivered: Condvar,
    capacity: usize,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<AccessRecord>,
    /// Records taken in and delivered since the start.
    accepted: u64,
    delivered: u64,
    dropped: u64,
    /// The thread sleeps without a deadline: only then is a record worth a wake-up.
    asleep: bool,
    /// Somebody waits in [`AccessLog::finish`].
    urgent: bool,
    closed: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, record: AccessRecord) {
        let mut state = self.lock();
        if state.waiting.len() >= self.capacity {
            state.dropped += 1;
            drop(state);
            metrics::counter!(crate::metrics::RECORDS_DROPPED).increment(1);
            return;
        }
        state.waiting.push(record);
        state.accepted += 1;
        if mem::take(&mut state.asleep) {
            drop(state);
            self.news.notify_one();
        }
    }

    fn finish(&self, deadline: Option<Instant>) -> bool {
        let mut state = self.lock();
        let target = state.accepted;
        while state.delivered < target {
            state.urgent = true;
            state.asleep = false;
            self.news.notify_one();
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            state = match left {
                None => self.delivered.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return false,
                Some(left) => {
                    self.delivered.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        true
    }

    /// Waits for records and takes all of them. `None`: closed and empty.
    fn take_batch(&self) -> Option<(Vec<AccessRecord>, u64)> {
        let mut state = self.lock();
        while state.waiting.is_empty() && !state.closed {
            state.asleep = true;
            state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.asleep = false;
        let gathering = |state: &mut State| !state.urgent && !state.closed;
        let (mut state, _) =
            self.news.wait_timeout_while(state, GATHER, gathering).unwrap_or_else(PoisonError::into_inner);
        state.urgent = false;
        if state.waiting.is_empty() {
            return None;
        }
        Some((mem::take(&mut state.waiting), state.dropped))
    }
}

/// The thread's own state.
struct Feeder {
    queue: Arc<Queue>,
    sinks: Vec<Box<dyn Sink>>,
    drops_told: u64,
}

impl Feeder {
    fn run(mut self) {
        while let Some((batch, dropped)) = self.queue.take_batch() {
            self.feed(&batch);
            if dropped > self.drops_told {
                tracing::warn!(dropped, "access records are dropped: the sinks are slower than the traffic");
                self.drops_told = dropped;
            }
            self.queue.lock().delivered += batch.len() as u64;
            self.queue.delivered.notify_all();
        }
    }

    /// A sink that panics must not take the others' records with it.
    fn feed(&mut self, batch: &[AccessRecord]) {
        for sink in &mut self.sinks {
            let fed = catch_unwind(AssertUnwindSafe(|| {
                batch.iter().for_each(|record| sink.record(record));
                sink.flush();
            }));
            if fed.is_err() {
                metrics::counter!(crate::metrics::RECORDS_LOST).increment(batch.len() as u64);
                tracing::error!(
                    records = batch.len(),
                    "a sink of access records failed; the batch may be lost"
                );
            }
        }
    }
}
