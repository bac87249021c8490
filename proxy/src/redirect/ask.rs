//! What is asked of the one thread that keeps `CAP_NET_ADMIN`, so that no other needs it.

use std::{
    io,
    sync::mpsc::{Sender, SyncSender, sync_channel},
};

use sidegate_policy::set::UdpDestination;

use super::RedirectError;

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
