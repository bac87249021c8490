//! The redirect rules as the sidecar sees them: kept in place or expected, and in step with the policy.

use std::{io, sync::Arc};

use sidegate_policy::{Diagnostic, PolicySet, Source};

use super::config::{Config, Rules};
use crate::{
    redirect::{
        Exempt, NFLOG_GROUP, Netlink, RedirectError, RefusalRecords, Refusals, Spec, Watch, WatchSockets,
        in_place, links, replace_udp,
    },
    server::Gate,
};

/// What the proxy has in hand of the kernel's rules.
#[derive(Debug)]
pub(super) struct Kernel {
    rules: Rules,
    /// Restores rules that somebody changed; `None` unless they are kept.
    watch: Option<Watch>,
    /// Records what the rules refuse, where the proxy may read it.
    _refusals: Option<RefusalRecords>,
}

impl Kernel {
    /// Puts the rules in place if they are to be kept, and says which guarantee does not hold here.
    ///
    /// # Errors
    /// The rules are to be kept and can't be.
    pub(super) fn open(config: &Config, gate: &Arc<Gate>) -> Result<Kernel, RedirectError> {
        let rules = config.redirect.rules;
        if rules == Rules::None {
            tracing::warn!("no redirect rules: only what is led here by other means is judged");
            return Ok(Kernel { rules, watch: None, _refusals: None });
        }
        let watch = match rules {
            Rules::Keep => Some(keep(config, gate)?),
            Rules::Expect | Rules::None => {
                expect();
                None
            }
        };
        own_user(config.redirect.uid);
        let refusals = record_refusals(gate);
        Ok(Kernel { rules, watch, _refusals: refusals })
    }

    /// Tells the kernel which datagrams `next` allows, where that differs from `now`.
    ///
    /// # Errors
    /// The kernel has still the old destinations; the new policies must not be applied without it.
    pub(super) fn follow(&self, now: &PolicySet, next: &PolicySet) -> Result<(), Vec<Diagnostic>> {
        if self.rules == Rules::None || now.udp_destinations() == next.udp_destinations() {
            return Ok(());
        }
        let udp = next.udp_destinations();
        let told = match &self.watch {
            Some(watch) => watch.replace_udp(udp).map_err(|error| error.to_string()),
            None => Netlink::netfilter()
                .map_err(|error| error.to_string())
                .and_then(|mut netlink| replace_udp(&mut netlink, udp).map_err(|error| error.to_string())),
        };
        told.map_err(|why| vec![refused(&why)])
    }
}

fn keep(config: &Config, gate: &Gate) -> Result<Watch, RedirectError> {
    let services = vec![config.listen.ready.port(), config.listen.metrics.port()];
    let spec = Spec {
        outbound: config.listen.outbound,
        dns: config.listen.dns,
        services,
        exempt: Exempt::Uid(config.redirect.uid),
        udp: gate.policies.current().udp_destinations().to_vec(),
        ..Spec::sidecar(config.redirect.uid)
    };
    let devices = links::outward().map_err(RedirectError::Devices)?;
    let sockets = WatchSockets::open().map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            RedirectError::NotPermitted("keeping the redirect rules".to_owned())
        }
        _ => RedirectError::Watch(error),
    })?;
    let watch = Watch::start(sockets, spec, devices)?;
    tracing::info!("the redirect rules are in place and watched");
    Ok(watch)
}

/// Looks whether `init` was here. Without the privilege to look, that is said instead.
fn expect() {
    match Netlink::netfilter().and_then(|mut netlink| in_place(&mut netlink)) {
        Ok(true) => tracing::info!("the redirect rules are in place"),
        Ok(false) => tracing::error!(
            "no redirect rules are in place: what the workload sends is NOT captured and NOT judged; \
             run `sidegate-proxy init` first, or set `redirect.rules` to `keep` or `none`"
        ),
        Err(error) => tracing::warn!(
            %error,
            "whether the redirect rules are in place can't be seen without CAP_NET_ADMIN; capture is assumed, not checked"
        ),
    }
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

fn record_refusals(gate: &Arc<Gate>) -> Option<RefusalRecords> {
    let opened = Refusals::open(NFLOG_GROUP).map_err(|error| error.to_string());
    let started = opened.and_then(|refusals| {
        RefusalRecords::start(refusals, Arc::clone(gate)).map_err(|error| error.to_string())
    });
    if let Err(why) = &started {
        tracing::warn!(%why, "packets that the rules refuse at once (datagrams, ICMP) are counted but not recorded");
    }
    started.ok()
}

fn refused(why: &str) -> Diagnostic {
    let message = format!("the kernel's rules for datagrams can't follow: {why}");
    let fix = "give the proxy CAP_NET_ADMIN, or restart the workload so that `init` installs them anew";
    Diagnostic::new(&Source::new("redirect rules", ""), "datagram-rules", 0..0, message, fix)
}
