//! Takes an identity and trust over for every handshake from then on, and tells of what it took and what it refused.

use std::sync::Arc;

use sidegate_certs::{Identity, TrustStore, UnixTime};
use sidegate_policy::TrustDomain;

use super::{
    ERRORS, EXPIRY, Fault, Identities, Part, ROTATIONS,
    alarm::{Alarm, Ring},
    told::rfc3339,
};

/// What every source of identities feeds.
#[derive(Debug)]
pub(super) struct Taker {
    identities: Arc<Identities>,
    domain: TrustDomain,
    alarm: Alarm,
}

impl Taker {
    /// Nothing was taken yet.
    pub(super) fn new(domain: TrustDomain) -> Self {
        let identities = Arc::new(Identities::empty(domain.clone()));
        Taker { identities, domain, alarm: Alarm::default() }
    }

    /// Where handshakes take their identity and their trust from.
    pub(super) fn identities(&self) -> Arc<Identities> {
        Arc::clone(&self.identities)
    }

    /// After each look at the source.
    pub(super) fn looked(&mut self, changed: bool, now: UnixTime) {
        if changed && let Some(Err(error)) = self.identities.vouched(now) {
            tracing::warn!("peers with the same bundle will refuse this proxy: {error}");
        }
        self.warn(now);
    }

    /// Whether it is another trust than before.
    pub(super) fn believe(&self, store: TrustStore) -> bool {
        self.mended(Part::Trust);
        let domain = &self.domain;
        let now = self.identities.trust.current();
        let (store, older) = store.no_older_than(&now);
        if older > 0 {
            tracing::warn!(
                issuers = older,
                "a revocation list is older than the one before it, which stays in force"
            );
        }
        if *now == store {
            return false;
        }
        let roots = store.bundle(domain).map_or(0, |bundle| bundle.roots().len());
        let revoked = store.revocations().len();
        self.identities.trust.replace(store);
        tracing::info!(
            trust_domain = domain.as_str(),
            roots,
            revoked,
            "a new trust bundle counts from now on"
        );
        true
    }

    /// Whether it is another identity than before.
    pub(super) fn show(&mut self, identity: Identity) -> bool {
        self.mended(Part::Identity);
        let cell = &self.identities.identity;
        let before = cell.current();
        // The key is that of the certificate.
        if before.as_ref().is_some_and(|before| before.identity.svid() == identity.svid()) {
            return false;
        }
        let (id, validity) = (identity.svid().id().clone(), identity.validity());
        let epoch = cell.replace(identity);
        if before.is_some() {
            metrics::counter!(ROTATIONS).increment(1);
        }
        metrics::gauge!(EXPIRY).set(validity.not_after.as_secs() as f64);
        self.alarm.reset();
        let until = rfc3339(validity.not_after);
        tracing::info!(id = id.as_str(), epoch, until, "a new certificate is served from now on");
        true
    }

    fn mended(&self, part: Part) {
        if self.identities.mended(part) {
            tracing::info!(part = part.word(), "it is in order again");
        }
    }

    pub(super) fn refuse(&self, part: Part, fault: Fault, now: UnixTime) {
        metrics::counter!(ERRORS, "part" => part.word()).increment(1);
        let held = match part {
            Part::Identity => self.identities.identity.current().is_some(),
            Part::Trust => self.identities.trust.current().bundle(&self.domain).is_some(),
        };
        let then = if held { "what was there before stays in force" } else { "not ready until it is mended" };
        let (file, message) = (fault.path.display(), &fault.ground);
        tracing::error!(part = part.word(), %file, fix = fault.fix(), "refused: {message}; {then}");
        self.identities.refused(part, fault, now);
    }

    fn warn(&mut self, now: UnixTime) {
        let Some(current) = self.identities.identity.current() else { return };
        let validity = current.identity.validity();
        let (id, until) = (current.identity.svid().id().as_str(), rfc3339(validity.not_after));
        match self.alarm.ring(validity, now) {
            Some(Ring::Late(left)) => {
                let left = left.as_secs();
                tracing::warn!(
                    id,
                    until,
                    left,
                    "half of the certificate's life is over and it was not renewed"
                );
            }
            Some(Ring::Over) => {
                tracing::error!(id, until, "the certificate has expired and is not served any more");
            }
            None => {}
        }
    }
}
