//! What a judgement says. Every value is `Copy` and borrows nothing: judging allocates nothing.

use crate::{Demands, Generation, Reason, RuleId};

/// The outcome for one connection or request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// A rule allows it.
    Allowed,
    /// Nothing allows it, or something forbids it.
    Denied,
    /// Denied, but audit mode lets it pass; recorded as `would-deny`.
    WouldDeny,
}

impl Verdict {
    /// The word that access records carry.
    pub const fn word(self) -> &'static str {
        match self {
            Verdict::Allowed => "allowed",
            Verdict::Denied => "denied",
            Verdict::WouldDeny => "would-deny",
        }
    }
}

/// Which address a permitted connection may be dialled at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dial {
    /// Resolve the request's host in the proxy, filter the answer with [`crate::PolicySet::judge_answer`], dial that.
    Name,
    /// The original destination: an address rule, a grant, or audit mode.
    OriginalDestination,
    /// A workload over mutual TLS (HBONE).
    Workload,
}

/// `tls.mode` of a rule, after defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsMode {
    /// The application's own TLS passes through; the server's choice of version is checked.
    Passthrough {
        /// TLS 1.2 is tolerated by a named exemption.
        min_tls12: bool,
    },
    /// Plaintext in, TLS 1.3 out.
    Originate,
    /// TLS terminated with a minted certificate and originated again.
    Inspect,
    /// Mutual TLS between workloads.
    Mesh,
    /// Ingress: TLS is terminated with the workload's certificate.
    Terminate,
    /// A named exemption: bytes pass as they are.
    None,
}

/// How a permitted connection is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Treatment {
    /// What is dialled.
    pub dial: Dial,
    /// What happens to TLS.
    pub tls: TlsMode,
    /// The name may answer with private, shared or ULA addresses.
    pub private: bool,
    /// Requests are judged one by one (`protocol: http`).
    pub per_request: bool,
    /// The rule demands more than this: see [`crate::PolicySet::demands`].
    pub demands: bool,
}

/// The part of a rule that kept it from matching.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Predicate {
    /// The destination host, address, group or peer differs.
    Destination,
    /// The port is outside the rule's ports.
    Port,
    /// The observed protocol is not the rule's.
    Protocol,
    /// Method or path differ.
    Http,
    /// TLS: version or ECH.
    Tls,
    /// The address is in the rule's `except`.
    Except,
}

impl Predicate {
    /// A stable word.
    pub const fn word(self) -> &'static str {
        match self {
            Predicate::Destination => "destination",
            Predicate::Port => "port",
            Predicate::Protocol => "protocol",
            Predicate::Http => "http",
            Predicate::Tls => "tls",
            Predicate::Except => "except",
        }
    }
}

/// The rule that came closest to allowing a denied request, and what it lacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NearMiss {
    /// The rule.
    pub rule: RuleId,
    /// The first predicate that failed.
    pub failed: Predicate,
}

/// The verdict and its why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Allowed, denied, or would have been denied.
    pub verdict: Verdict,
    /// The stable reason.
    pub reason: Reason,
    /// The rule that decided; `None` for the fixed table and the default deny.
    pub rule: Option<RuleId>,
    /// How to carry it; `Some` exactly when the verdict is not [`Verdict::Denied`].
    pub treatment: Option<Treatment>,
    /// For denials: the closest allow rule.
    pub nearest: Option<NearMiss>,
    /// The generation of the set that decided.
    pub generation: Generation,
}

impl Decision {
    /// What comes of it in a build that does not carry out every treatment, or not what the rule demands besides: what it
    /// can't is denied, never weakened.
    #[must_use]
    pub fn limited_to(
        self,
        demands: &Demands,
        carried_out: impl Fn(Treatment, &Demands) -> bool,
    ) -> Decision {
        match self.treatment {
            Some(treatment) if !carried_out(treatment, demands) => {
                let (verdict, reason) = (Verdict::Denied, Reason::NotSupported);
                Decision { verdict, reason, treatment: None, ..self }
            }
            _ => self,
        }
    }
}

/// What DNS may do with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameDecision {
    /// `Denied`: the question is never sent upstream.
    pub verdict: Verdict,
    /// [`Reason::RuleAllows`], [`Reason::NameNotAllowed`], [`Reason::RuleDenies`], ...
    pub reason: Reason,
    /// The rule that could allow it (the most specific one) or that denies it.
    pub rule: Option<RuleId>,
    /// Answer with a synthetic address: a `protocol: tcp` host rule covers the name.
    pub synthetic: bool,
    /// A pattern allows the name, not the name itself: how many different names may be asked for is budgeted.
    pub wildcard: bool,
    /// Some rule lets the name answer with private addresses.
    pub private: bool,
    /// For denials: the closest allow rule.
    pub nearest: Option<NearMiss>,
    /// The generation of the set that decided.
    pub generation: Generation,
}
