//! Where access records go: bounded, never blocking the data path, with counted drops.

use std::sync::Arc;

use sidegate_api::AccessRecord;

/// A destination of records: a file, standard output, the summary of `sidegate run`.
/// Called on one dedicated thread, in order.
pub trait Sink: Send {
    /// Takes one record.
    fn record(&mut self, record: &AccessRecord);
    /// Called when the queue is empty for now, and at the end.
    fn flush(&mut self) {}
}

/// The queue to the sinks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AccessLog {
    _queue: Arc<()>,
}

impl AccessLog {
    /// Starts the thread that feeds the sinks.
    pub fn start(sinks: Vec<Box<dyn Sink>>) -> Self {
        let _ = sinks;
        todo!()
    }

    /// Hands over one record; when the queue is full the record is dropped and counted (`sidegate_access_records_dropped_total`).
    pub fn write(&self, record: AccessRecord) {
        let _ = record;
        todo!()
    }

    /// Waits until every record written so far has reached the sinks and flushes them. Used at exit.
    pub fn finish(&self) {
        todo!()
    }
}
