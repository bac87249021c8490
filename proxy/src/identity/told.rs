//! The identity and the trust of the moment, and what is said of them. Never a key.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use sidegate_certs::{
    IdentityCell, TrustBundle, TrustStore, UnixTime, Validity,
    bundle::{Role, RootSummary},
    identity::Current,
    tls::TrustCell,
};
use sidegate_policy::TrustDomain;

use super::{Fault, Part};
use crate::clock::rfc3339_millis;

/// What handshakes take their identity and their trust from. Shared with whoever keeps them up to date.
#[derive(Debug)]
pub struct Identities {
    /// Who we are; empty before the first good pair of certificate and key.
    pub identity: Arc<IdentityCell>,
    /// Whom we believe; nobody before the first good bundle.
    pub trust: Arc<TrustCell>,
    domain: TrustDomain,
    faults: Mutex<BTreeMap<&'static str, (UnixTime, Fault)>>,
}

/// Why a proxy is not ready that should have an identity.
const NO_IDENTITY: &str =
    "no usable identity: the certificate is absent, refused or expired; `/certs` and the log say why";
/// Why a proxy is not ready that should believe somebody.
const NO_TRUST: &str = "no usable trust bundle: no peer is believed; `/certs` and the log say why";

impl Identities {
    /// Nobody yet, who will be of this trust domain.
    pub(crate) fn empty(domain: TrustDomain) -> Self {
        let (identity, trust) = (Arc::new(IdentityCell::empty()), Arc::new(TrustCell::default()));
        Identities { identity, trust, domain, faults: Mutex::default() }
    }

    /// Why the proxy may not be relied on at `now`; empty: it may.
    pub fn wanting(&self, now: UnixTime) -> Vec<&'static str> {
        let identity = self.identity.current().is_some_and(|current| holds(&current, now));
        let trust = self.trust.current();
        let trust = trust.bundle(&self.domain).is_some_and(|bundle| bundle.holds(now));
        let checks = [(identity, NO_IDENTITY), (trust, NO_TRUST)];
        checks.into_iter().filter_map(|(fine, why)| (!fine).then_some(why)).collect()
    }

    /// Whether those who hold the same bundle believe us at `now`, else why not; `None`: there is no identity.
    pub(super) fn vouched(&self, now: UnixTime) -> Option<Result<(), String>> {
        let current = self.identity.current()?;
        let trust = self.trust.current();
        let judged = trust.verify(current.identity.svid().chain(), Role::Client, now);
        Some(judged.map(|_| ()).map_err(|error| error.to_string()))
    }

    /// Whether our own certificate was revoked, by the lists that we follow.
    pub(crate) fn is_revoked(&self, now: UnixTime) -> bool {
        let Some(current) = self.identity.current() else { return false };
        let judged = self.trust.current().verify(current.identity.svid().chain(), Role::Client, now);
        judged.is_err_and(|error| error.is_revoked())
    }

    /// Files were refused.
    pub(super) fn refused(&self, part: Part, fault: Fault, now: UnixTime) {
        self.faults().insert(part.word(), (now, fault));
    }

    /// They are good now; whether they were not.
    pub(super) fn mended(&self, part: Part) -> bool {
        self.faults().remove(part.word()).is_some()
    }

    /// The answer of `/certs` at `now`.
    pub fn tell(&self, now: UnixTime) -> Value {
        let trust = self.trust.current();
        let identity = self.identity.current().map(|current| self.tell_identity(&current, now));
        json!({
            "configured": true,
            "identity": identity,
            "trust": trust.bundle(&self.domain).map(|bundle| tell_trust(bundle, &trust, now)),
            "faults": self.faults().iter().map(|(part, (since, fault))| tell_fault(part, *since, fault)).collect::<Vec<_>>(),
        })
    }

    fn tell_identity(&self, current: &Current, now: UnixTime) -> Value {
        let svid = current.identity.svid();
        let vouched = self.vouched(now).and_then(Result::err);
        json!({
            "id": svid.id().as_str(),
            "serial": hex(svid.serial()),
            "notBefore": rfc3339(svid.validity().not_before),
            "notAfter": rfc3339(svid.validity().not_after),
            "epoch": current.epoch,
            "certificates": svid.chain().len(),
            "usable": holds(current, now),
            "believedByOwnBundle": vouched.is_none(),
            "unbelievedBecause": vouched,
        })
    }

    fn faults(&self) -> MutexGuard<'_, BTreeMap<&'static str, (UnixTime, Fault)>> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer of `/certs` where no identity is configured.
pub(crate) fn unconfigured() -> Value {
    json!({ "configured": false, "identity": null, "trust": null, "faults": [] })
}

fn holds(current: &Current, now: UnixTime) -> bool {
    current.identity.validity().holds(now)
}

fn tell_trust(bundle: &TrustBundle, trust: &TrustStore, now: UnixTime) -> Value {
    json!({
        "trustDomain": bundle.trust_domain().as_str(),
        "sequence": bundle.sequence(),
        "refreshHintSeconds": bundle.refresh_hint().map(|hint| hint.as_secs()),
        "roots": bundle.summaries().iter().map(|root| tell_root(root, now)).collect::<Vec<_>>(),
        "revoked": trust.revocations().len(),
        "staleRevocationLists": trust.revocations().stale(now),
    })
}

fn tell_root(root: &RootSummary, now: UnixTime) -> Value {
    let Validity { not_before, not_after } = root.validity;
    json!({
        "subject": root.subject,
        "serial": hex(&root.serial),
        "sha256": hex(&root.fingerprint),
        "notBefore": rfc3339(not_before),
        "notAfter": rfc3339(not_after),
        "usable": root.validity.holds(now),
    })
}

fn tell_fault(part: &str, since: UnixTime, fault: &Fault) -> Value {
    json!({
        "part": part,
        "since": rfc3339(since),
        "file": fault.path,
        "message": fault.ground.to_string(),
        "fix": fault.fix(),
    })
}

/// RFC 3339 in UTC.
pub(super) fn rfc3339(time: UnixTime) -> String {
    let seconds = std::time::Duration::from_secs(time.as_secs());
    rfc3339_millis(UNIX_EPOCH.checked_add(seconds).unwrap_or_else(SystemTime::now))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
