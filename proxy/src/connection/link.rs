//! What every stage passes on: the client's socket, its record, its room in the limits.

use std::sync::Arc;

use tokio::net::TcpStream;

use super::{Worker, record::Record};
use crate::limits::ConnectionSlot;

/// The client's side of a connection. Fields drop in order: the record is written, then the socket closes, then
/// there is room for another.
pub(crate) struct Link {
    pub(crate) record: Record,
    pub(crate) client: TcpStream,
    pub(crate) slot: ConnectionSlot,
    pub(crate) worker: Arc<Worker>,
}
