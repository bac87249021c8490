//! Datagram destinations that follow the policy, changed by one thread so that no other needs `CAP_NET_ADMIN`.

use std::{
    io,
    sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    thread::JoinHandle,
};

use sidegate_policy::set::UdpDestination;

use super::{Netlink, RedirectError, install::replace_udp, refusals::refused_packets};

/// What is asked of the thread that has the capability, and where the outcome is told.
#[derive(Debug)]
pub(super) enum Ask {
    /// Other datagram destinations.
    Udp(Vec<UdpDestination>, SyncSender<Result<(), RedirectError>>),
    /// Packets refused so far.
    Refused(SyncSender<io::Result<RefusedPackets>>),
}

/// Packets that the rules have refused since they were put in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefusedPackets {
    /// How often this process has put the rules back: each time the count begins anew.
    pub restored: u64,
    /// The count.
    pub packets: u64,
}

impl RefusedPackets {
    /// How many packets were refused after `before` was counted. Where somebody else put the rules in place anew, the
    /// count may be too low.
    pub fn since(self, before: RefusedPackets) -> u64 {
        let anew = self.restored != before.restored;
        if anew { self.packets } else { self.packets.checked_sub(before.packets).unwrap_or(self.packets) }
    }
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
        ask(self.asks.as_ref(), |told| Ask::Udp(udp.to_vec(), told), || {}).unwrap_or_else(|| Err(gone()))
    }

    /// Packets that the rules have refused since they were put in place; `None` when they can't be counted.
    pub fn refused_packets(&self) -> Option<RefusedPackets> {
        ask(self.asks.as_ref(), Ask::Refused, || {})?.ok()
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
    while let Ok(ask) = asked.recv() {
        match ask {
            Ask::Udp(udp, told) => drop(told.send(replace_udp(&mut netlink, &udp))),
            Ask::Refused(told) => {
                let counted = refused_packets(&mut netlink);
                let _ = told.send(counted.map(|packets| RefusedPackets { restored: 0, packets }));
            }
        }
    }
}

/// Asks a thread and waits for what came of it. `None`: it is gone.
pub(super) fn ask<T>(
    asks: Option<&Sender<Ask>>,
    what: impl FnOnce(SyncSender<T>) -> Ask,
    wake: impl FnOnce(),
) -> Option<T> {
    let (told, outcome) = sync_channel(1);
    asks?.send(what(told)).ok()?;
    wake();
    outcome.recv().ok()
}

/// The thread ended; it said why in the log.
pub(super) fn gone() -> RedirectError {
    RedirectError::Watch(io::ErrorKind::BrokenPipe.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_began_anew_is_counted_whole() {
        let at = |restored, packets| RefusedPackets { restored, packets };
        assert_eq!(at(0, 500).since(at(0, 200)), 300);
        assert_eq!(at(1, 500).since(at(0, 500)), 500, "the naive difference is 0");
        assert_eq!(at(0, 10).since(at(0, 500)), 10, "somebody else put the rules in place");
    }
}
