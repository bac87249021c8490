//! Notices when somebody else changes the rules, puts them back, and is loud about it.
//!
//! Whoever can change the rules has `CAP_NET_ADMIN` and is not stopped by this for good; but an accident (a reload of
//! another firewall that flushes everything) is mended within a second, and nothing happens unseen.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, TryRecvError, channel},
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
    FrameWall, RedirectError, Refused, Spec,
    follow::{Ask, RefusedPackets, ask, gone},
    install::{change_sets, install_on},
    netlink::{Netlink, message, uapi},
    plan::{PRIORITY_NAT, Plan},
    refusals::refused_packets,
    snapshot::{EarlierChain, Snapshot, earlier_chains},
};
use crate::clock;

/// Shortest time between two looks: a bound on what a stream of changes can cost.
const QUIET: Duration = Duration::from_millis(100);
/// When putting the rules back failed, the next try.
const RETRY: Duration = Duration::from_millis(500);
/// Tries to see our own change alone, before the watch begins.
const SETTLE: usize = 10;

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
    thread: Option<JoinHandle<()>>,
}

/// The rules as they must be.
#[derive(Debug)]
struct Kept {
    control: Netlink,
    spec: Spec,
    devices: Vec<String>,
    frames_up: bool,
    expected: Snapshot,
    /// How often they were put back.
    restored: u64,
    /// Foreign chains that were already told of.
    alarmed: std::collections::BTreeSet<EarlierChain>,
}

impl Watch {
    /// Installs the rules (in one transaction, over those that are there) and watches them from then on.
    /// `devices`: the links that lead out, as [`super::links::outward`] lists them in the same namespace.
    /// The thread keeps the capabilities of the caller, who may then drop its own.
    ///
    /// # Errors
    /// As [`super::install()`]; nothing is watched then.
    pub fn start(sockets: WatchSockets, spec: Spec, devices: Vec<String>) -> Result<Watch, RedirectError> {
        let WatchSockets { mut control, events } = sockets;
        let (expected, frames_up) = settle(&mut control, &events, &spec, &devices)?;
        let kept =
            Kept { control, spec, devices, frames_up, expected, restored: 0, alarmed: Default::default() };
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = Arc::new(eventfd(0, flags).map_err(|error| RedirectError::Watch(error.into()))?);
        let (asks, asked) = channel();
        let woken = Arc::clone(&wake);
        let thread = std::thread::Builder::new()
            .name("redirect-watch".to_owned())
            .spawn(move || watch(&events, kept, &woken, &asked))
            .map_err(RedirectError::Watch)?;
        Ok(Watch { asks: Some(asks), wake, thread: Some(thread) })
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

/// Installs and reads back until nobody else changed anything in between, so that no foreign rule is taken for ours.
fn settle(
    control: &mut Netlink,
    events: &Netlink,
    spec: &Spec,
    devices: &[String],
) -> Result<(Snapshot, bool), RedirectError> {
    for _ in 0..SETTLE {
        drain(events).map_err(RedirectError::Watch)?;
        let installed = install_on(control, spec, devices.to_vec())?;
        let snapshot = Snapshot::take(control).map_err(RedirectError::Watch)?;
        if drain(events).map_err(RedirectError::Watch)? == Changes::One {
            return Ok((snapshot, matches!(installed.frames, FrameWall::Up(_))));
        }
    }
    Err(RedirectError::Refused(Refused {
        purpose: "installing the rules while somebody else keeps changing them".to_owned(),
        source: io::ErrorKind::ResourceBusy.into(),
    }))
}

fn watch(events: &Netlink, mut kept: Kept, wake: &OwnedFd, asked: &Receiver<Ask>) {
    let mut looked = Instant::now();
    let mut due: Option<Instant> = None;
    // When a change was noticed that is not looked at yet, or could not be undone.
    let mut noticed: Option<Instant> = None;
    loop {
        let wait = due.map(|due| due.saturating_duration_since(Instant::now()));
        let timeout = wait.and_then(|wait| Timespec::try_from(wait).ok());
        let mut ready = [events.as_fd(), wake.as_fd()].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        if poll(&mut ready, timeout.as_ref()).is_err_and(|error| error != rustix::io::Errno::INTR) {
            return tracing::error!("the redirect rules are no longer watched: poll failed");
        }
        let _ = rustix::io::read(wake, &mut [0; 8]);
        if !kept.answer(asked) {
            return;
        }
        match drain(events) {
            Ok(Changes::None) => {}
            Ok(_) => {
                due = due.or(Some(looked + QUIET));
                noticed = noticed.or_else(|| Some(Instant::now()));
            }
            Err(error) => return tracing::error!(%error, "the redirect rules are no longer watched"),
        }
        if due.is_some_and(|due| due <= Instant::now()) {
            looked = Instant::now();
            due = if kept.look(noticed.unwrap_or(looked)) { None } else { Some(looked + RETRY) };
            noticed = noticed.filter(|_| due.is_some());
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Changes {
    None,
    One,
    Several,
}

/// Empties the queue of events.
fn drain(events: &Netlink) -> io::Result<Changes> {
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

impl Kept {
    /// Does what was asked. `false`: nobody will ask any more.
    fn answer(&mut self, asked: &Receiver<Ask>) -> bool {
        loop {
            match asked.try_recv() {
                Ok(Ask::Udp(udp, told)) => drop(told.send(self.replace_udp(udp))),
                Ok(Ask::Refused(told)) => {
                    let counted = refused_packets(&mut self.control);
                    let restored = self.restored;
                    let _ = told.send(counted.map(|packets| RefusedPackets { restored, packets }));
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn replace_udp(&mut self, udp: Vec<UdpDestination>) -> Result<(), RedirectError> {
        self.spec.udp = udp;
        let sets = Plan::new(&self.spec, &[]).udp_sets();
        match change_sets(&mut self.control, sets) {
            Ok(()) => {}
            // Somebody took the table away: put all of it back, with the new destinations.
            Err(refused) if refused.source.raw_os_error() == Some(libc::ENOENT) => self.restore()?,
            Err(refused) => return Err(refused.into()),
        }
        let now = Snapshot::take(&mut self.control).map_err(RedirectError::Watch)?;
        if !now.differs_in_elements_only(&self.expected) {
            self.restore()?;
            self.expected = Snapshot::take(&mut self.control).map_err(RedirectError::Watch)?;
            return Ok(());
        }
        self.expected = now;
        Ok(())
    }

    /// Compares, and restores what differs. `false`: look again soon.
    fn look(&mut self, noticed: Instant) -> bool {
        match earlier_chains(&mut self.control, PRIORITY_NAT) {
            Ok(found) => self.alarm(found),
            Err(error) => tracing::error!(%error, "can't read the chains of others"),
        }
        match Snapshot::take(&mut self.control) {
            Ok(now) if now == self.expected => return true,
            Ok(_) => tracing::error!("the redirect rules were changed by somebody else; putting them back"),
            Err(error) => tracing::error!(%error, "the redirect rules can't be read; putting them back"),
        }
        match self.restore() {
            Ok(()) => {
                metrics::counter!("sidegate_redirect_restored_total").increment(1);
                let took_ms = clock::millis(noticed.elapsed());
                tracing::warn!(took_ms, "the redirect rules are in place again");
                true
            }
            Err(error) => {
                metrics::counter!("sidegate_redirect_restore_failures_total").increment(1);
                tracing::error!(%error, "the redirect rules could not be put back");
                false
            }
        }
    }

    /// Puts the rules back. What is expected stays: our own change is looked at like any other.
    fn restore(&mut self) -> Result<(), RedirectError> {
        let installed = install_on(&mut self.control, &self.spec, self.devices.clone())?;
        self.restored += 1;
        if matches!(installed.frames, FrameWall::Absent(_)) && self.frames_up {
            tracing::error!("a guarded device is gone or the kernel refuses: no second wall any more");
            self.frames_up = false;
            self.expected = Snapshot::take(&mut self.control).map_err(RedirectError::Watch)?;
        }
        Ok(())
    }

    fn alarm(&mut self, found: std::collections::BTreeSet<EarlierChain>) {
        for EarlierChain { table, chain } in found.difference(&self.alarmed) {
            metrics::counter!("sidegate_redirect_foreign_chains_total").increment(1);
            tracing::error!(%table, %chain, "a chain of another table may take connections before the redirect sees them");
        }
        self.alarmed = found;
    }
}
