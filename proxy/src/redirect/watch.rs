//! Notices when somebody else changes the rules, puts them back, and is loud about it.
//!
//! Whoever can change the rules has `CAP_NET_ADMIN` and is not stopped by this for good; but an accident (a reload of
//! another firewall that flushes everything) is mended within a second, and nothing happens unseen.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    net::RecvFlags,
};
use sidegate_policy::set::UdpDestination;

use super::{
    RedirectError, Spec,
    ask::{Ask, RefusedPackets, ask, gone},
    kept::Kept,
    netlink::{Netlink, message, uapi},
};

/// Shortest time between two looks: a bound on what a stream of changes can cost.
const QUIET: Duration = Duration::from_millis(100);
/// When putting the rules back failed, the next try.
const RETRY: Duration = Duration::from_millis(500);

const NEWGEN: u16 = uapi::NFNL_SUBSYS_NFTABLES << 8 | uapi::NFT_MSG_NEWGEN;

/// The sockets of a watch, in the network namespace where they were opened. Opening the second needs `CAP_NET_ADMIN`.
#[derive(Debug)]
pub struct WatchSockets {
    /// Reads and restores rules.
    pub control: Netlink,
    /// Is told of changes.
    pub events: Netlink,
}

impl WatchSockets {
    /// Opens both in the current network namespace.
    ///
    /// # Errors
    /// EPERM without `CAP_NET_ADMIN`.
    pub fn open() -> io::Result<WatchSockets> {
        let events = Netlink::netfilter_events(uapi::GROUP_NFTABLES)?;
        Ok(WatchSockets { control: Netlink::netfilter()?, events })
    }
}

/// Keeps the rules in place until dropped. They stay when it is. One thread does all of it, so that no other needs a
/// capability.
#[derive(Debug)]
pub struct Watch {
    /// `None` only while it is dropped.
    asks: Option<Sender<Ask>>,
    wake: Arc<OwnedFd>,
    in_place: InPlace,
    thread: Option<JoinHandle<()>>,
}

/// Whether the rules are in place and watched, for threads that may not ask the kernel.
#[derive(Clone, Debug)]
pub struct InPlace(Arc<AtomicBool>);

impl InPlace {
    pub(super) fn new(holds: bool) -> InPlace {
        InPlace(Arc::new(AtomicBool::new(holds)))
    }

    /// They are, as far as was seen last.
    pub fn holds(&self) -> bool {
        self.0.load(Relaxed)
    }

    pub(super) fn set(&self, holds: bool) {
        self.0.store(holds, Relaxed);
    }
}

impl Watch {
    /// Installs the rules (in one transaction, over those that are there) and watches them from then on.
    /// `devices`: the links that lead out, as [`super::links::outward`] lists them in the same namespace.
    /// The thread keeps the capabilities of the caller, who may then drop its own.
    ///
    /// # Errors
    /// As [`super::install()`]; nothing is watched then.
    pub fn start(sockets: WatchSockets, spec: Spec, devices: Vec<String>) -> Result<Watch, RedirectError> {
        let WatchSockets { control, events } = sockets;
        let mut kept = Kept::new(control, spec);
        kept.settle(&events, devices)?;
        Watch::keep(events, kept)
    }

    /// Takes over the rules that somebody else put in place (`init`), instead of which come those of `spec`, and keeps
    /// them from then on. Where there are none it waits for them and puts none in place. Call it in the network
    /// namespace of `sockets`; for the rest as [`Watch::start`].
    ///
    /// # Errors
    /// As [`Watch::start`].
    pub fn take_over(sockets: WatchSockets, spec: Spec) -> Result<Watch, RedirectError> {
        let WatchSockets { control, events } = sockets;
        let mut kept = Kept::new(control, spec);
        kept.take_over(&events)?;
        Watch::keep(events, kept)
    }

    fn keep(events: Netlink, kept: Kept) -> Result<Watch, RedirectError> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = Arc::new(eventfd(0, flags).map_err(|error| RedirectError::Watch(error.into()))?);
        let (asks, asked) = channel();
        let (woken, in_place) = (Arc::clone(&wake), kept.in_place.clone());
        let thread = std::thread::Builder::new()
            .name("redirect-watch".to_owned())
            .spawn(move || {
                let in_place = kept.in_place.clone();
                if let Err(error) = watch(&events, kept, &woken, &asked) {
                    in_place.set(false);
                    tracing::error!(%error, "the redirect rules are no longer watched");
                }
            })
            .map_err(RedirectError::Watch)?;
        Ok(Watch { asks: Some(asks), wake, in_place, thread: Some(thread) })
    }

    /// Whether the rules are in place.
    pub fn in_place(&self) -> InPlace {
        self.in_place.clone()
    }

    /// Replaces the allowed datagram destinations, for a new policy generation.
    ///
    /// # Errors
    /// As [`super::replace_udp()`]; also when the rules are no longer watched.
    pub fn replace_udp(&self, udp: &[UdpDestination]) -> Result<(), RedirectError> {
        let wake = || self.wake();
        ask(self.asks.as_ref(), |told| Ask::Udp(udp.to_vec(), told), wake).unwrap_or_else(|| Err(gone()))
    }

    /// Packets that the rules have refused since they were put in place; `None` when they can't be counted.
    pub fn refused_packets(&self) -> Option<RefusedPackets> {
        ask(self.asks.as_ref(), Ask::Refused, || self.wake())?.ok()
    }

    fn wake(&self) {
        // It fails only when it is awake already.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.asks = None;
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Until nobody asks any more.
fn watch(events: &Netlink, mut kept: Kept, wake: &OwnedFd, asked: &Receiver<Ask>) -> io::Result<()> {
    let mut looked = Instant::now();
    let mut due: Option<Instant> = None;
    // When a change was noticed that is not looked at yet, or could not be undone.
    let mut noticed: Option<Instant> = None;
    loop {
        let wait = due.map(|due| due.saturating_duration_since(Instant::now()));
        let timeout = wait.and_then(|wait| Timespec::try_from(wait).ok());
        let mut ready = [events.as_fd(), wake.as_fd()].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        match poll(&mut ready, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let _ = rustix::io::read(wake, &mut [0; 8]);
        if !kept.answer(asked) {
            return Ok(());
        }
        if drain(events)? != Changes::None {
            due = due.or(Some(looked + QUIET));
            noticed = noticed.or_else(|| Some(Instant::now()));
        }
        if due.is_some_and(|due| due <= Instant::now()) {
            looked = Instant::now();
            due = if kept.look(events, noticed.unwrap_or(looked)) { None } else { Some(looked + RETRY) };
            noticed = noticed.filter(|_| due.is_some());
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Changes {
    None,
    One,
    Several,
}

/// Empties the queue of events.
pub(super) fn drain(events: &Netlink) -> io::Result<Changes> {
    let mut generations = 0;
    loop {
        match events.receive(RecvFlags::DONTWAIT) {
            Ok(None) => break,
            Ok(Some(bytes)) => generations += message::messages(&bytes).filter(|m| m.kind == NEWGEN).count(),
            // More changes than the queue holds.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => generations += 2,
            Err(error) => return Err(error),
        }
    }
    Ok(match generations {
        0 => Changes::None,
        1 => Changes::One,
        _ => Changes::Several,
    })
}
