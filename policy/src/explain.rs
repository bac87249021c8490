//! A verdict with all its reasons, for people and for scripts.

mod text;
mod why;

use std::sync::Arc;

use serde::Serialize;

use crate::{
    Decision, Demands, Direction, HostEvidence, Observed, PolicySet, Proposal, Reason, Request, RuleId,
    Treatment, Verdict,
    decision::{Dial, TlsMode},
    demands::{self, ClientAddress},
    document::{Action, Destination},
};

/// Why a request is judged as it is. Its JSON form is stable; its text form ([`std::fmt::Display`]) is for people.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The judged request in words, such as `tls api.example.com:443`.
    pub request: String,
    /// Which way it goes.
    #[serde(skip)]
    pub direction: Direction,
    /// The decision itself.
    #[serde(skip)]
    pub decision: Decision,
    /// `allowed`, `denied` or `would-deny`.
    pub verdict: &'static str,
    /// The stable word.
    pub reason: &'static str,
    /// What it means, one sentence.
    pub meaning: &'static str,
    /// The rule that decided.
    pub rule: Option<RuleView>,
    /// How it is carried.
    pub treatment: Option<TreatmentView>,
    /// Each check in order, and what it found.
    pub steps: Vec<Step>,
    /// Allow rules that came near, nearest first, and what each lacked.
    pub near: Vec<NearRule>,
    /// What to do next; empty when nothing is to be done.
    pub fix: &'static str,
    /// For what is not allowed: the smallest rule that would allow it, as YAML.
    pub suggestion: Option<String>,
    /// What else to know of this answer, such as what was assumed.
    pub notes: Vec<String>,
}

/// A rule's name and place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleView {
    /// The policy.
    pub policy: String,
    /// The rule.
    pub name: String,
    /// Its `reason`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The file.
    pub file: String,
    /// 1-based line.
    pub line: usize,
}

/// A treatment in stable words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TreatmentView {
    /// `name`, `original-destination` or `workload`.
    pub dial: &'static str,
    /// `passthrough`, `originate`, `inspect`, `mesh`, `terminate` or `none`.
    pub tls: &'static str,
    /// Least version in passthrough: `1.3` or `1.2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_tls: Option<&'static str>,
    /// The name may answer with private addresses.
    pub private: bool,
    /// Each HTTP request is judged.
    pub per_request: bool,
    /// Requests a second that the rule allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<u32>,
    /// Requests at once that it allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// The label of the roots that servers are verified with, where they are not the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roots: Option<Box<str>>,
    /// Keys of which one has to be in the server's chain.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pins: Vec<String>,
    /// The workload's certificate is shown to servers that ask.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub client_identity: bool,
    /// The label of the certificate that clients are shown, where it is not the workload's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Box<str>>,
    /// How the application learns the client's address: `proxyProtocol` or `forwarded`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_address: Option<&'static str>,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// `policies`, `fixed-table`, `deny-rules`, `allow-rules`, `probes`, `default`, `hidden-hosts` or `this-build`.
    pub check: &'static str,
    /// What it found, in words.
    pub found: String,
}

/// A rule that came near.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NearRule {
    /// The rule.
    #[serde(flatten)]
    pub rule: RuleView,
    /// `destination`, `except`, `port`, `protocol`, `tls` or `http`.
    pub failed: &'static str,
    /// Why it does not match, in words.
    pub why: String,
}

impl PolicySet {
    /// Judges a request and says why. Slower than [`PolicySet::decide`], with the same decision.
    pub fn explain(&self, request: &Request<'_>) -> Explanation {
        self.explain_for(request, |_, _| true)
    }

    /// As [`PolicySet::explain`], in a build that carries out some treatments only: the others are denied with
    /// [`Reason::NotSupported`], and no rule that asks for one is suggested.
    pub fn explain_for(
        &self,
        request: &Request<'_>,
        carried_out: fn(Treatment, &Demands) -> bool,
    ) -> Explanation {
        let judged = self.decide(request);
        let decision = self.decide_for(request, carried_out);
        let refused = decision.verdict != Verdict::Allowed;
        let unbuilt = decision.reason == Reason::NotSupported;
        let hidden = decision.reason == Reason::HostHidden;
        let hopeless = matches!(decision.reason, Reason::NoPolicy | Reason::RuleDenies) || unbuilt || hidden;
        let mut steps = why::steps(self, request, &judged);
        let asked = self.carried(&judged).filter(|_| unbuilt);
        steps.extend(
            asked.map(|asked| Step {
                check: "this-build",
                found: format!("does not carry it out yet: {asked}"),
            }),
        );
        if let Some(rule) = decision.rule.filter(|_| hidden) {
            let found =
                format!("{} names hosts at this port, and each request may name another", self.view(rule));
            steps.push(Step { check: "hidden-hosts", found });
        }
        Explanation {
            request: text::request(request),
            direction: request.direction,
            decision,
            verdict: decision.verdict.word(),
            reason: decision.reason.word(),
            meaning: decision.reason.meaning(),
            rule: decision.rule.map(|rule| self.view(rule)),
            treatment: self.carried(&decision),
            steps,
            near: if refused && !unbuilt && !hidden { why::near_rules(self, request) } else { Vec::new() },
            fix: decision.reason.fix(),
            suggestion: (refused && !hopeless).then(|| self.suggest(request, carried_out)),
            notes: Vec::new(),
        }
    }

    /// As [`PolicySet::decide`], and as the proxy answers then: a build denies what it does not carry out, and where a
    /// deny rule names hosts at the port, no plaintext HTTP passes whose every request may name another host.
    pub fn decide_for(
        &self,
        request: &Request<'_>,
        carried_out: impl Fn(Treatment, &Demands) -> bool,
    ) -> Decision {
        let decision = self.decide(request);
        let decision = decision.limited_to(self.demands_of(&decision), carried_out);
        let vouched = request.host.is_some_and(|(evidence, _)| evidence != HostEvidence::HttpAuthority);
        let hides = request.direction == Direction::Egress && request.observed == Observed::Http && !vouched;
        if !hides || decision.reason != Reason::RuleAllows {
            return decision;
        }
        let Some(rule) = self.host_deny_at(request.port, request.today) else { return decision };
        let (verdict, reason) = (Verdict::Denied, Reason::HostHidden);
        Decision { verdict, reason, rule: Some(rule), treatment: None, ..decision }
    }

    /// The smallest rule that would allow a request, no narrower than what a rule for its host says already.
    fn suggest(&self, request: &Request<'_>, carried_out: fn(Treatment, &Demands) -> bool) -> String {
        let private = request.host.is_some_and(|(_, host)| {
            let opens = |end: &Destination| matches!(end, Destination::Hosts { hosts, private: true } if hosts.iter().any(|pattern| pattern.matches(host)));
            self.rules().any(|(_, rule)| rule.action == Action::Allow && rule.ends.iter().any(opens))
        });
        match Proposal::for_build(request, |treatment| carried_out(treatment, &demands::NONE)) {
            Ok(proposal) => proposal.as_private_as(private).rule(),
            Err(hopeless) => format!("# {hopeless}\n"),
        }
    }

    /// How a decision of this set is carried, in words; `None`: it is not.
    pub fn carried(&self, decision: &Decision) -> Option<TreatmentView> {
        let demands = decision.rule.and_then(|rule| self.demands(rule)).map(Arc::as_ref);
        let treatment = decision.treatment?;
        Some(TreatmentView::of(treatment, demands.filter(|_| treatment.demands)))
    }

    /// A rule's name and place.
    pub fn view(&self, rule: RuleId) -> RuleView {
        let facts = self.rule(rule);
        let (file, line) = &facts.place;
        RuleView {
            policy: facts.policy.to_string(),
            name: facts.name.to_string(),
            reason: facts.reason.as_ref().map(ToString::to_string),
            file: file.to_string(),
            line: *line,
        }
    }
}

impl TreatmentView {
    /// A treatment in words, with what its rule demands besides.
    pub fn of(treatment: Treatment, demands: Option<&Demands>) -> Self {
        let dial = match treatment.dial {
            Dial::Name => "name",
            Dial::OriginalDestination => "original-destination",
            Dial::Workload => "workload",
        };
        let (tls, min_tls) = match treatment.tls {
            TlsMode::Passthrough { min_tls12: false } => ("passthrough", Some("1.3")),
            TlsMode::Passthrough { min_tls12: true } => ("passthrough", Some("1.2")),
            TlsMode::Originate => ("originate", None),
            TlsMode::Inspect => ("inspect", None),
            TlsMode::Mesh => ("mesh", None),
            TlsMode::Terminate => ("terminate", None),
            TlsMode::None => ("none", None),
        };
        let demands = demands.cloned().unwrap_or_default();
        TreatmentView {
            dial,
            tls,
            min_tls,
            private: treatment.private,
            per_request: treatment.per_request,
            requests_per_second: demands.limit.map(|limit| limit.per_second),
            burst: demands.limit.map(|limit| limit.burst),
            roots: demands.origin.roots,
            pins: demands.origin.pins,
            client_identity: demands.origin.client_identity,
            certificate: demands.certificate,
            client_address: demands.client_address.map(ClientAddress::word),
        }
    }
}

pub(crate) fn request_words(request: &Request<'_>) -> String {
    text::request(request)
}

pub(crate) fn observed_word(observed: Observed) -> &'static str {
    text::protocol(observed)
}

pub(crate) fn list_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => "egress",
        Direction::Ingress => "ingress",
    }
}
