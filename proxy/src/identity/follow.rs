//! Keeps the identity and the trust of the moment those of the files.

use std::{sync::Arc, time::Duration};

use sidegate_certs::{Identity, TrustStore, UnixTime};
use tokio::time::{MissedTickBehavior, interval};

use super::{
    ERRORS, EXPIRY, Fault, Identities, IdentityFiles, Part, ROTATIONS,
    alarm::{Alarm, Ring},
    attempts::Attempts,
    load,
    told::rfc3339,
};

/// How often the files are looked at: a change is taken over within a second, also if it is not whole at once.
/// By looking alone, since file systems that secrets are mounted by need not tell of changes.
const LOOK: Duration = Duration::from_millis(500);

/// Follows the files of an identity.
#[derive(Debug)]
pub struct Follower {
    files: IdentityFiles,
    identities: Arc<Identities>,
    identity: Attempts,
    trust: Attempts,
    alarm: Alarm,
}

impl Follower {
    /// Follows these files; nothing was read yet.
    pub fn new(files: IdentityFiles) -> Self {
        let identities = Arc::new(Identities::empty(files.trust_domain.clone()));
        let (identity, trust) = (Attempts::new(files.of_identity()), Attempts::new(files.of_trust()));
        Follower { files, identities, identity, trust, alarm: Alarm::default() }
    }

    /// Where handshakes take their identity and their trust from.
    pub fn identities(&self) -> Arc<Identities> {
        Arc::clone(&self.identities)
    }

    /// Looks at the files for as long as it is polled.
    pub async fn run(mut self) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            // A file system that hangs must not keep the event loop.
            let looked = tokio::task::spawn_blocking(move || {
                self.look(UnixTime::now());
                self
            });
            match looked.await {
                Ok(follower) => self = follower,
                Err(error) => {
                    return tracing::error!(%error, "identity files are not followed any more; restart the proxy");
                }
            }
        }
    }

    /// Looks once: reads what changed, takes it over or tells what is wrong with it, and tells of an end that is near.
    pub fn look(&mut self, now: UnixTime) {
        let mut changed = false;
        let Follower { files, trust, identity, .. } = self;
        let believed = trust.look(now, || load::trust(files, now));
        let shown = identity.look(now, || load::identity(files, now));
        match believed {
            Some(Ok(store)) => changed |= self.believe(store),
            Some(Err(fault)) => self.refuse(Part::Trust, fault, now),
            None => {}
        }
        match shown {
            Some(Ok(identity)) => changed |= self.show(identity),
            Some(Err(fault)) => self.refuse(Part::Identity, fault, now),
            None => {}
        }
        if changed && let Some(Err(error)) = self.identities.vouched(now) {
            tracing::warn!("peers with the same bundle will refuse this proxy: {error}");
        }
        self.warn(now);
    }

    /// Whether it is another trust than before.
    fn believe(&self, store: TrustStore) -> bool {
        self.mended(Part::Trust);
        let domain = &self.files.trust_domain;
        let now = self.identities.trust.current();
        if now.bundle(domain) == store.bundle(domain) && now.revocations() == store.revocations() {
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
    fn show(&mut self, identity: Identity) -> bool {
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
            tracing::info!(part = part.word(), "the files are in order again");
        }
    }

    fn refuse(&self, part: Part, fault: Fault, now: UnixTime) {
        metrics::counter!(ERRORS, "part" => part.word()).increment(1);
        let held = match part {
            Part::Identity => self.identities.identity.current().is_some(),
            Part::Trust => self.identities.trust.current().bundle(&self.files.trust_domain).is_some(),
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
