//! What the sidecar says of itself: to probes, to the admin socket, to the log.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::SystemTime,
};

use serde::Serialize;
use sidegate_certs::UnixTime;
use sidegate_policy::{Diagnostic, Generation};

use super::kernel::Capture;
use crate::{clock::rfc3339_millis, identity::Identities, peers};

/// Shared by the endpoints, the reloader and the drain.
#[derive(Debug, Default)]
pub(super) struct Status {
    capture: Capture,
    /// Where an identity is configured.
    identities: Option<Arc<Identities>>,
    /// Where a peers file is.
    peers: Option<Arc<peers::Told>>,
    serving: AtomicBool,
    draining: AtomicBool,
    policies: Mutex<Policies>,
}

#[derive(Debug, Default)]
struct Policies {
    applied: Option<Applied>,
    last_reload: Option<Reload>,
}

/// The policies that judge now.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Applied {
    /// Their generation.
    pub(super) generation: Generation,
    /// When they were applied, RFC 3339.
    pub(super) since: String,
    /// One entry a document, in the order of their files.
    pub(super) documents: Vec<DocumentSummary>,
}

impl Applied {
    /// There are documents, and all of them are for other workloads.
    pub(super) fn is_idle(&self) -> bool {
        !self.documents.iter().any(|document| document.applies)
    }
}

/// Why a proxy with policies is not ready.
pub(super) const NONE_APPLIES: &str = "no policy applies to this workload: everything is denied; compare `workload` with the policies' `appliesTo`";

/// Why a proxy without the rules is not ready.
pub(super) const NOT_CAPTURED: &str = "the redirect rules are not in place: what the workload sends is NOT captured and NOT judged; run `sidegate-proxy init`, \
     or set `redirect.rules` to `keep` or `none`";

/// A document in a few words.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DocumentSummary {
    /// `metadata.name`.
    pub(super) name: String,
    /// The file it stands in.
    pub(super) file: String,
    /// Number of egress rules.
    pub(super) egress: usize,
    /// Number of ingress rules.
    pub(super) ingress: usize,
    /// How many of these are for datagrams.
    #[serde(skip)]
    pub(super) ingress_datagrams: usize,
    /// It is in audit mode: its denials are recorded, not enforced, until its last day.
    pub(super) audit: bool,
    /// Its `appliesTo` matches this workload, or it has none.
    pub(super) applies: bool,
}

/// The last attempt to apply policies.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reload {
    /// What came of it.
    pub(super) result: ReloadResult,
    /// When, RFC 3339.
    pub(super) time: String,
    /// Why it was refused: every diagnostic.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) diagnostics: Vec<Diagnostic>,
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ReloadResult {
    /// The new policies judge.
    Applied,
    /// They were refused whole; the old ones judge on.
    Refused,
}

impl ReloadResult {
    /// The label of `sidegate_policy_reload_total`.
    pub(super) const fn word(self) -> &'static str {
        match self {
            ReloadResult::Applied => "applied",
            ReloadResult::Refused => "refused",
        }
    }
}

/// The answer of `/ready`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Readiness {
    /// Traffic is judged by a policy and passed on.
    pub(super) ready: bool,
    /// Why not; empty when ready.
    pub(super) reasons: Vec<&'static str>,
    /// The generation that judges, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) generation: Option<Generation>,
}

impl Status {
    /// Nothing serves yet.
    pub(super) fn new(
        capture: Capture,
        identities: Option<Arc<Identities>>,
        peers: Option<Arc<peers::Told>>,
    ) -> Status {
        Status { capture, identities, peers, ..Status::default() }
    }

    /// What is said of the peers file; `None`: there is none.
    pub(super) fn peers(&self) -> Option<&peers::Told> {
        self.peers.as_deref()
    }

    /// The listeners are up and the workers run.
    pub(super) fn serving(&self) {
        self.serving.store(true, Relaxed);
    }

    /// The identity and the trust of the moment; `None`: no identity is configured.
    pub(super) fn identities(&self) -> Option<&Identities> {
        self.identities.as_deref()
    }

    /// What the start may say of itself.
    pub(super) fn claim(&self) -> &'static str {
        self.capture.claim()
    }

    /// No new connections are taken any more.
    pub(super) fn draining(&self) {
        self.draining.store(true, Relaxed);
    }

    /// New policies judge from now on.
    pub(super) fn applied(&self, generation: Generation, documents: Vec<DocumentSummary>) {
        let now = rfc3339_millis(SystemTime::now());
        let mut policies = self.policies();
        policies.applied = Some(Applied { generation, since: now.clone(), documents });
        policies.last_reload =
            Some(Reload { result: ReloadResult::Applied, time: now, diagnostics: Vec::new() });
    }

    /// New policies were refused; nothing else changed.
    pub(super) fn refused(&self, diagnostics: Vec<Diagnostic>) {
        let time = rfc3339_millis(SystemTime::now());
        self.policies().last_reload = Some(Reload { result: ReloadResult::Refused, time, diagnostics });
    }

    /// The policies that judge now, and the last attempt to change them.
    pub(super) fn policy(&self) -> (Option<Applied>, Option<Reload>) {
        let policies = self.policies();
        (policies.applied.clone(), policies.last_reload.clone())
    }

    /// Whether the workload may rely on the proxy.
    pub(super) fn readiness(&self) -> Readiness {
        let policies = self.policies();
        let generation = policies.applied.as_ref().map(|applied| applied.generation);
        let idle = policies.applied.as_ref().is_some_and(Applied::is_idle);
        drop(policies);
        let checks = [
            (!self.serving.load(Relaxed), "the listeners are not up yet"),
            (generation.is_none(), "no policy is loaded: everything is denied"),
            (idle, NONE_APPLIES),
            (self.capture.is_absent(), NOT_CAPTURED),
            (self.draining.load(Relaxed), "the proxy is draining"),
        ];
        let mut reasons: Vec<_> = checks.into_iter().filter_map(|(not, why)| not.then_some(why)).collect();
        if let Some(identities) = &self.identities {
            reasons.extend(identities.wanting(UnixTime::now()));
        }
        reasons.extend(self.peers.as_ref().and_then(|peers| peers.wanting()));
        Readiness { ready: reasons.is_empty(), reasons, generation }
    }

    fn policies(&self) -> MutexGuard<'_, Policies> {
        self.policies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(applies: bool) -> DocumentSummary {
        DocumentSummary {
            name: "first".to_owned(),
            file: "p.yaml".to_owned(),
            egress: 1,
            ingress: 0,
            ingress_datagrams: 0,
            audit: false,
            applies,
        }
    }

    #[test]
    fn ready_takes_listeners_and_policies_and_ends_with_the_drain() {
        let status = Status::default();
        assert_eq!(status.readiness().reasons.len(), 2);
        status.serving();
        assert_eq!(status.readiness().reasons, ["no policy is loaded: everything is denied"]);
        status.refused(Vec::new());
        assert!(!status.readiness().ready);
        status.applied(Generation(1), vec![document(false), document(false)]);
        assert_eq!(status.readiness().reasons, [NONE_APPLIES]);
        status.applied(Generation(2), vec![document(false), document(true)]);
        assert!(status.readiness().ready);
        status.refused(Vec::new());
        assert!(status.readiness().ready, "the old policies judge on");
        status.draining();
        assert_eq!(status.readiness().reasons, ["the proxy is draining"]);
    }
}
