//! The redirect rules as the sidecar sees them: kept in place or expected, and in step with the policy.

use std::{io, sync::Arc};

use sidegate_policy::{Diagnostic, PolicySet, Source, set::UdpDestination};

use super::{
    config::{Config, Rules},
    status::NOT_CAPTURED,
};
use crate::{
    redirect::{
        Datagrams, InPlace, NFLOG_GROUP, RedirectError, RefusalRecords, Refusals, RefusedPackets, Spec,
        Watch, WatchSockets, links,
    },
    server::Gate,
};

/// What the proxy has in hand of the kernel's rules.
#[derive(Debug)]
pub(super) struct Kernel {
    hold: Hold,
    /// What the rules refuse, as the kernel tells it, where the proxy may read it and until somebody does.
    refusals: Option<Refusals>,
    _records: Option<RefusalRecords>,
    /// Refused packets at the last count.
    refused: RefusedPackets,
}

/// Packets that the redirect rules refused, recorded or not.
pub(super) const REFUSED: &str = "sidegate_refused_packets_total";

const WATCHED: &str = "the redirect rules are in place and watched";

/// How the rules are held.
#[derive(Debug)]
enum Hold {
    /// Restored when somebody changes them, by a thread that keeps `CAP_NET_ADMIN`.
    Kept(Watch),
    /// The proxy may not touch them.
    Untouchable,
    /// There are none.
    Absent,
}

/// What is known of whether the workload's traffic is led here.
#[derive(Clone, Debug, Default)]
pub(super) enum Capture {
    /// By redirect rules that are watched; while they are not in place, nothing is.
    Watched(InPlace),
    /// By redirect rules that can't be seen.
    Assumed,
    /// By other means.
    #[default]
    Elsewhere,
}

impl Capture {
    /// It is known that nothing is.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Capture::Watched(rules) if !rules.holds())
    }

    /// What the start may claim.
    pub(super) fn claim(&self) -> &'static str {
        match self {
            Capture::Watched(rules) if !rules.holds() => {
                "serving, not ready: nothing is judged until redirect rules are in place"
            }
            Capture::Watched(_) => {
                "serving: outbound TCP and DNS are judged; deny by default, TLS 1.3 unless a rule exempts"
            }
            Capture::Assumed => {
                "serving: where the redirect rules are in place (not checked), outbound TCP and DNS are judged; \
                 deny by default, TLS 1.3 unless a rule exempts"
            }
            Capture::Elsewhere => {
                "serving: TCP and DNS that are led here are judged; deny by default, TLS 1.3 unless a rule exempts"
            }
        }
    }
}

impl Kernel {
    /// Puts the rules in place if they are to be kept, opens all that needs `CAP_NET_ADMIN`, starts the one thread that
    /// keeps it, and says which guarantee does not hold here. `permitted`: the calling thread has the capability. Call
    /// it before any other thread is started.
    ///
    /// # Errors
    /// The rules are to be kept and can't be, or the system has no thread to give.
    pub(super) fn open(
        config: &Config,
        permitted: bool,
        udp: &[UdpDestination],
    ) -> Result<Kernel, RedirectError> {
        let rules = config.redirect.rules;
        if rules == Rules::None {
            tracing::warn!("no redirect rules: only what is led here by other means is judged");
            return Ok(Kernel {
                hold: Hold::Absent,
                refusals: None,
                _records: None,
                refused: RefusedPackets::default(),
            });
        }
        own_user(config.redirect.uid);
        let hold = match (rules, permitted) {
            (Rules::Keep, _) => Hold::Kept(keep(config, udp)?),
            (_, true) => take_over(config, udp)?,
            (_, false) => untouchable(config, udp),
        };
        let refusals = if permitted { refusals() } else { None };
        let mut kernel = Kernel { hold, refusals, _records: None, refused: RefusedPackets::default() };
        kernel.refused = kernel.refused_packets().unwrap_or_default();
        Ok(kernel)
    }

    /// What is known of capture.
    pub(super) fn capture(&self) -> Capture {
        match &self.hold {
            Hold::Kept(watch) => Capture::Watched(watch.in_place()),
            Hold::Untouchable => Capture::Assumed,
            Hold::Absent => Capture::Elsewhere,
        }
    }

    /// Brings the metric of refused packets up to date.
    pub(super) fn count_refused(&mut self) {
        let Some(now) = self.refused_packets() else { return };
        metrics::counter!(REFUSED).increment(now.since(self.refused));
        self.refused = now;
    }

    fn refused_packets(&self) -> Option<RefusedPackets> {
        match &self.hold {
            Hold::Kept(watch) => watch.refused_packets(),
            Hold::Untouchable | Hold::Absent => None,
        }
    }

    /// Records what the rules refuse from now on, where the proxy may read it. Needs no capability.
    pub(super) fn record_refusals(&mut self, gate: &Arc<Gate>) {
        let Some(refusals) = self.refusals.take() else { return };
        match RefusalRecords::start(refusals, Arc::clone(gate), Datagrams::ByRule) {
            Ok(records) => self._records = Some(records),
            Err(error) => tracing::warn!(%error, "{UNRECORDED}"),
        }
    }

    /// Tells the kernel which datagrams `next` allows, where that differs from `now`.
    ///
    /// # Errors
    /// The kernel has still the old destinations; the new policies must not be applied without it.
    pub(super) fn follow(&self, now: &PolicySet, next: &PolicySet) -> Result<(), Vec<Diagnostic>> {
        let udp = next.udp_destinations();
        if now.udp_destinations() == udp {
            return Ok(());
        }
        let told = match &self.hold {
            Hold::Kept(watch) => watch.replace_udp(udp).map_err(|error| error.to_string()),
            Hold::Untouchable => Err("CAP_NET_ADMIN is missing".to_owned()),
            Hold::Absent => Ok(()),
        };
        told.map_err(|why| vec![refused(&why)])
    }
}

/// One line for all that is lost.
const WITHOUT_CAPABILITY: &str = "CAP_NET_ADMIN is missing: nobody keeps the redirect rules; they are assumed, not checked, and when somebody \
     removes them traffic flows unjudged, unseen; refused datagrams and ICMP are counted, not recorded; `udp` rules allow nothing. \
     Grant it to the proxy alone (`setcap cap_net_admin+ep sidegate-proxy`, or as an ambient capability): one thread keeps it, the \
     others drop it, and under this `redirect.rules: expect` the rules are then watched and put back; or say `redirect.rules: none` \
     where applications are led here by other means";
const UNRECORDED: &str =
    "packets that the rules refuse at once (datagrams, ICMP) are counted but not recorded";

fn keep(config: &Config, udp: &[UdpDestination]) -> Result<Watch, RedirectError> {
    let devices = links::outward().map_err(RedirectError::Devices)?;
    let watch = Watch::start(sockets()?, spec(config, udp), devices)?;
    tracing::info!("{WATCHED}");
    Ok(watch)
}

fn sockets() -> Result<WatchSockets, RedirectError> {
    WatchSockets::open().map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            RedirectError::NotPermitted("keeping the redirect rules".to_owned())
        }
        _ => RedirectError::Watch(error),
    })
}

/// Keeps what `init` put in place, or waits for it.
fn take_over(config: &Config, udp: &[UdpDestination]) -> Result<Hold, RedirectError> {
    let sockets = match sockets() {
        // The network namespace belongs to another user namespace than the capability.
        Err(RedirectError::NotPermitted(_)) => return Ok(untouchable(config, udp)),
        opened => opened?,
    };
    let watch = Watch::take_over(sockets, spec(config, udp))?;
    if watch.in_place().holds() {
        tracing::info!("{WATCHED}");
    } else {
        tracing::error!("not ready: {NOT_CAPTURED}");
    }
    Ok(Hold::Kept(watch))
}

fn untouchable(config: &Config, udp: &[UdpDestination]) -> Hold {
    tracing::warn!(udp_rules = !udp.is_empty(), uid = config.redirect.uid, "{WITHOUT_CAPABILITY}");
    Hold::Untouchable
}

/// The rules of this configuration. Its own ports are closed beside those of every sidecar, never instead of them.
fn spec(config: &Config, udp: &[UdpDestination]) -> Spec {
    let mut spec = Spec {
        outbound: config.listen.outbound,
        inbound: config.inbound.capture.then_some(config.listen.inbound),
        dns: config.listen.dns,
        udp: udp.to_vec(),
        ..Spec::sidecar(config.redirect.uid)
    };
    spec.services.extend([config.listen.ready.port(), config.listen.metrics.port()]);
    spec.services.sort_unstable();
    spec.services.dedup();
    spec
}

/// Without the exempt user the rules lead the proxy's own traffic back to it.
fn own_user(expected: u32) {
    let uid = rustix::process::geteuid().as_raw();
    if uid != expected {
        tracing::warn!(
            uid,
            expected,
            "the proxy does not run as the uid that the redirect rules exempt: they lead its own traffic back to it, \
             which it refuses as a loop"
        );
    }
}

fn refusals() -> Option<Refusals> {
    let opened = Refusals::open(NFLOG_GROUP);
    if let Err(error) = &opened {
        tracing::warn!(%error, why = %error.source, "{UNRECORDED}");
    }
    opened.ok()
}

fn refused(why: &str) -> Diagnostic {
    let message = format!("the kernel's rules for datagrams can't follow: {why}");
    let fix = "give the proxy CAP_NET_ADMIN, or leave the `udp` rules as they are";
    Diagnostic::new(&Source::new("redirect rules", ""), "datagram-rules", 0..0, message, fix)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn ports_of_every_sidecar_stay_closed_beside_the_configured_ones() {
        let text = "apiVersion: sidegate.dev/v1\nkind: ProxyConfig\npolicies: [ p.yaml ]\n\
                    listen: { ready: \"127.0.0.1:16021\", metrics: \"[::]:15020\" }\n";
        let config = Config::parse(&Source::new("proxy.yaml", text), Path::new("")).expect("it parses");
        assert_eq!(spec(&config, &[]).services, [15000, 15008, 15020, 15021, 16021]);
    }
}
