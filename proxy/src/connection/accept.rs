//! The listener's loop: a socket, room for it, its original destination.

use std::{io, net::SocketAddr, sync::Arc};

use sidegate_policy::{Direction, Reason};
use tokio::net::{TcpListener, TcpStream};

use super::{Worker, farewell, link::Link, live::Judgement, record::Record};
use crate::{
    addrs::{ClientAddr, OriginalDst},
    back_off,
};

/// A connection whose original destination is known.
pub(crate) struct Accepted {
    pub(crate) link: Link,
    pub(crate) original: OriginalDst,
}

/// What becomes of the connections of a listener.
#[derive(Clone, Copy)]
pub(crate) struct Story {
    pub(crate) direction: Direction,
    pub(crate) start: fn(Link),
}

/// Accepts for as long as it is polled. Errors of one connection never reach the loop.
pub(crate) async fn accept_all(worker: &Arc<Worker>, listener: TcpListener, story: Story) {
    loop {
        take_in(worker, listener.accept().await, story).await;
    }
}

/// Welcomes a connection, or waits out the want of one.
async fn take_in(worker: &Arc<Worker>, accepted: io::Result<(TcpStream, SocketAddr)>, story: Story) {
    match accepted {
        Ok((client, from)) => welcome(worker, client, from, story),
        Err(error) if back_off::is_of_one_peer(&error) => {}
        Err(error) => {
            worker.meters.accept_errors.increment(1);
            tracing::error!(%error, "can't accept connections; trying again");
            back_off::after(&error).await;
        }
    }
}

/// Takes room for a connection, or sheds it: reset at once, with a record that names the limit.
fn welcome(worker: &Arc<Worker>, client: TcpStream, from: SocketAddr, story: Story) {
    let from = ClientAddr::new(from);
    let mut record = Record::open(worker, from, story.direction);
    match worker.limits.connection(from.ip()) {
        Ok(slot) => (story.start)(Link { record, client, slot, worker: Arc::clone(worker) }),
        Err(reason) => {
            record.denied(Judgement::refused(reason));
            farewell::reset(&client);
        }
    }
}

/// Learns where the client meant to go.
///
/// # Errors
/// It was not redirected: it came straight to our port, perhaps from ourselves.
pub(crate) fn learn_destination(link: &mut Link) -> Result<OriginalDst, Reason> {
    match (link.worker.gate.original_dst)(&link.client) {
        Ok(original) => {
            link.record.original = Some(original);
            Ok(original)
        }
        Err(error) => {
            tracing::debug!(%error, "a connection without an original destination");
            Err(Reason::NotRedirected)
        }
    }
}

#[cfg(test)]
mod tests;
