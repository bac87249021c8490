//! Datagram destinations that follow the policy, changed by one thread so that no other needs `CAP_NET_ADMIN`.

use std::{
    io,
    sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    thread::JoinHandle,
};

use sidegate_policy::set::UdpDestination;

use super::{Netlink, RedirectError, install::replace_udp};

/// A wish for other datagram destinations, and where the outcome is told.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) udp: Vec<UdpDestination>,
    pub(super) told: SyncSender<Result<(), RedirectError>>,
}

/// Changes the datagram destinations of rules that somebody else put in place. Ends when dropped.
#[derive(Debug)]
pub struct Follower {
    /// `None` only while it is dropped.
    asks: Option<Sender<Ask>>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    /// Starts the thread, which keeps the capabilities of the caller, who may then drop its own.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(netlink: Netlink) -> io::Result<Follower> {
        let (asks, asked) = channel();
        let thread = std::thread::Builder::new()
            .name("redirect-sets".to_owned())
            .spawn(move || follow(netlink, &asked))?;
        Ok(Follower { asks: Some(asks), thread: Some(thread) })
    }

    /// Replaces the allowed datagram destinations.
    ///
    /// # Errors
    /// As [`replace_udp()`].
    pub fn replace_udp(&self, udp: &[UdpDestination]) -> Result<(), RedirectError> {
        ask(self.asks.as_ref().ok_or_else(gone)?, udp, || {})
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.asks = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn follow(mut netlink: Netlink, asked: &Receiver<Ask>) {
    while let Ok(Ask { udp, told }) = asked.recv() {
        let _ = told.send(replace_udp(&mut netlink, &udp));
    }
}

/// Asks a thread and waits for what came of it.
pub(super) fn ask(
    asks: &Sender<Ask>,
    udp: &[UdpDestination],
    wake: impl FnOnce(),
) -> Result<(), RedirectError> {
    let (told, outcome) = sync_channel(1);
    asks.send(Ask { udp: udp.to_vec(), told }).map_err(|_| gone())?;
    wake();
    outcome.recv().unwrap_or_else(|_| Err(gone()))
}

/// The thread ended; it said why in the log.
pub(super) fn gone() -> RedirectError {
    RedirectError::Watch(io::ErrorKind::BrokenPipe.into())
}
