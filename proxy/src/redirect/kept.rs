//! The rules as they must be, and what is done when they are not.

use std::{
    collections::BTreeSet,
    io,
    sync::mpsc::{Receiver, TryRecvError},
    time::Instant,
};

use sidegate_policy::set::UdpDestination;

use super::{
    FrameWall, RedirectError, Refused, Spec,
    ask::{Ask, RefusedPackets},
    install::{change_sets, install_on},
    links,
    netlink::Netlink,
    plan::{PRIORITY_NAT, Plan},
    refusals::refused_packets,
    snapshot::{EarlierChain, Snapshot, earlier_chains},
    watch::{Changes, InPlace, drain},
};
use crate::clock;

/// Tries to see our own change alone, before the watch begins.
const SETTLE: usize = 10;

const WATCHED: &str = "the redirect rules are in place and watched";
const CHANGED: &str = "the redirect rules were changed by somebody else; putting them back";

const RESTORED: &str = "sidegate_redirect_restored_total";
const RESTORE_FAILURES: &str = "sidegate_redirect_restore_failures_total";
const FOREIGN_CHAINS: &str = "sidegate_redirect_foreign_chains_total";

/// What the thread of a watch holds.
#[derive(Debug)]
pub(super) struct Kept {
    control: Netlink,
    spec: Spec,
    devices: Vec<String>,
    frames_up: bool,
    /// `None`: nobody has put any in place yet.
    expected: Option<Snapshot>,
    pub(super) in_place: InPlace,
    /// How often they were put back.
    restored: u64,
    /// Foreign chains that were already told of.
    alarmed: BTreeSet<EarlierChain>,
}

impl Kept {
    /// Waits for rules that somebody else puts in place.
    pub(super) fn new(control: Netlink, spec: Spec) -> Kept {
        // There from the start, so that the first count is seen to rise.
        for series in [RESTORED, RESTORE_FAILURES, FOREIGN_CHAINS] {
            let _ = metrics::counter!(series);
        }
        let (in_place, alarmed) = (InPlace::new(false), BTreeSet::new());
        Kept {
            control,
            spec,
            devices: Vec::new(),
            frames_up: false,
            expected: None,
            in_place,
            restored: 0,
            alarmed,
        }
    }

    /// Installs and reads back until nobody else changed anything in between, so that no foreign rule is taken for ours.
    pub(super) fn settle(&mut self, events: &Netlink, devices: Vec<String>) -> Result<(), RedirectError> {
        self.devices = devices;
        for _ in 0..SETTLE {
            drain(events).map_err(RedirectError::Watch)?;
            let installed = install_on(&mut self.control, &self.spec, self.devices.clone())?;
            let snapshot = Snapshot::take(&mut self.control).map_err(RedirectError::Watch)?;
            if drain(events).map_err(RedirectError::Watch)? == Changes::One {
                self.frames_up = matches!(installed.frames, FrameWall::Up(_));
                self.expected = Some(snapshot);
                self.in_place.set(true);
                return Ok(());
            }
        }
        Err(RedirectError::Refused(Refused {
            purpose: "installing the rules while somebody else keeps changing them".to_owned(),
            source: io::ErrorKind::ResourceBusy.into(),
        }))
    }

    /// Puts ours instead of those that are there. `false`: there are none.
    pub(super) fn take_over(&mut self, events: &Netlink) -> Result<bool, RedirectError> {
        let found = Snapshot::take(&mut self.control).map_err(RedirectError::Watch)?;
        if !found.has_rules() {
            return Ok(false);
        }
        // Of all that `init` can be told, the only thing that the configuration does not say.
        self.spec.loopback_dns = found.loopback_dns();
        self.settle(events, links::outward().map_err(RedirectError::Devices)?)?;
        Ok(true)
    }

    /// Does what was asked. `false`: nobody will ask any more.
    pub(super) fn answer(&mut self, asked: &Receiver<Ask>) -> bool {
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
        let before = std::mem::replace(&mut self.spec.udp, udp);
        let outcome = self.follow_udp();
        if outcome.is_err() {
            // What was refused must not come with the rules when they are put back.
            self.spec.udp = before;
        }
        outcome
    }

    fn follow_udp(&mut self) -> Result<(), RedirectError> {
        // They come with the rules.
        let Some(expected) = &self.expected else { return Ok(()) };
        let sets = Plan::new(&self.spec, &[]).udp_sets();
        let changed = change_sets(&mut self.control, sets);
        // Somebody took the table away: put all of it back, with the new destinations.
        let lost = changed.as_ref().is_err_and(|refused| refused.source.raw_os_error() == Some(libc::ENOENT));
        if !lost {
            changed?;
            let now = Snapshot::take(&mut self.control).map_err(RedirectError::Watch)?;
            if now.differs_in_elements_only(expected) {
                self.expected = Some(now);
                return Ok(());
            }
        }
        tracing::error!("{CHANGED}");
        self.put_back(Instant::now())?;
        self.expected = Some(Snapshot::take(&mut self.control).map_err(RedirectError::Watch)?);
        Ok(())
    }

    /// Compares, and restores what differs. `false`: look again soon.
    pub(super) fn look(&mut self, events: &Netlink, noticed: Instant) -> bool {
        match earlier_chains(&mut self.control, PRIORITY_NAT) {
            Ok(found) => self.alarm(found),
            Err(error) => tracing::error!(%error, "can't read the chains of others"),
        }
        let Some(expected) = &self.expected else { return self.look_for_others(events) };
        match Snapshot::take(&mut self.control) {
            Ok(now) if now == *expected => {
                self.in_place.set(true);
                return true;
            }
            Ok(_) => tracing::error!("{CHANGED}"),
            Err(error) => tracing::error!(%error, "the redirect rules can't be read; putting them back"),
        }
        self.put_back(noticed).is_ok()
    }

    /// Whether `init` was here meanwhile. `false`: look again soon.
    fn look_for_others(&mut self, events: &Netlink) -> bool {
        match self.take_over(events) {
            Ok(true) => tracing::info!("{WATCHED}"),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(%error, "the redirect rules could not be taken over");
                return false;
            }
        }
        true
    }

    /// Restores, counts it and says so.
    fn put_back(&mut self, noticed: Instant) -> Result<(), RedirectError> {
        self.in_place.set(false);
        let outcome = self.restore();
        self.in_place.set(outcome.is_ok());
        match &outcome {
            Ok(()) => {
                metrics::counter!(RESTORED).increment(1);
                let took_ms = clock::millis(noticed.elapsed());
                tracing::warn!(took_ms, "the redirect rules are in place again");
            }
            Err(error) => {
                metrics::counter!(RESTORE_FAILURES).increment(1);
                tracing::error!(%error, "the redirect rules could not be put back");
            }
        }
        outcome
    }

    /// Puts the rules back. What is expected stays: our own change is looked at like any other.
    fn restore(&mut self) -> Result<(), RedirectError> {
        let installed = install_on(&mut self.control, &self.spec, self.devices.clone())?;
        self.restored += 1;
        if matches!(installed.frames, FrameWall::Absent(_)) && self.frames_up {
            tracing::error!("a guarded device is gone or the kernel refuses: no second wall any more");
            self.frames_up = false;
            self.expected = Some(Snapshot::take(&mut self.control).map_err(RedirectError::Watch)?);
        }
        Ok(())
    }

    fn alarm(&mut self, found: BTreeSet<EarlierChain>) {
        for EarlierChain { table, chain } in found.difference(&self.alarmed) {
            metrics::counter!(FOREIGN_CHAINS).increment(1);
            tracing::error!(%table, %chain, "a chain of another table may take connections before the redirect sees them");
        }
        self.alarmed = found;
    }
}
