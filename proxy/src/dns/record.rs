//! Exactly one access record per question, however it ends.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use sidegate_api::{
    AccessRecord,
    access_record::{CloseReason, DnsFacts, SCHEMA},
};
use sidegate_policy::{NameDecision, PolicySet, Predicate, Reason, Verdict};

use super::{message::Question, question::Told, server::Arrival};
use crate::{addrs::OriginalDst, clock, metrics, server::Gate};

/// The record of one question, opened when it arrives; written when dropped.
pub(super) struct QuestionRecord {
    gate: Arc<Gate>,
    started: Instant,
    verdict: Verdict,
    reason: Reason,
    /// Everything else; `verdict` and `reason` are put in at the end.
    record: AccessRecord,
    answered: bool,
}

impl QuestionRecord {
    /// A record that says "the proxy failed" until it learns better.
    pub(super) fn open(gate: &Arc<Gate>, arrival: &Arrival) -> Self {
        let record = AccessRecord {
            schema: SCHEMA.to_owned(),
            time: clock::rfc3339_millis(SystemTime::now()),
            direction: "egress".to_owned(),
            workload: gate.workload.clone(),
            source: Some(arrival.source.socket_addr()),
            original_dst: arrival.original_dst.map(OriginalDst::socket_addr),
            upstream: None,
            host: None,
            protocol: "dns".to_owned(),
            tls: None,
            dns: None,
            http: None,
            verdict: String::new(),
            policy: None,
            rule: None,
            reason: String::new(),
            explanation: None,
            generation: gate.policies.current().generation().0,
            bytes_sent: 0,
            bytes_received: 0,
            duration_ms: 0.0,
            close_reason: CloseReason::Internal,
        };
        QuestionRecord {
            gate: gate.clone(),
            started: Instant::now(),
            verdict: Verdict::Denied,
            reason: Reason::Internal,
            record,
            answered: false,
        }
    }

    /// What was asked.
    pub(super) fn asked(&mut self, question: &Question, bytes: usize) {
        // Bytes that are no part of host names come out as escapes, so that records stay printable.
        let name = question.name().to_ascii().to_ascii_lowercase();
        self.record.host = Some(name.strip_suffix('.').unwrap_or(&name).to_owned());
        self.facts().question = question.record_type().to_string();
        self.record.bytes_sent = bytes as u64;
    }

    /// Which rule spoke, and in which generation. Replaces what an older generation said.
    pub(super) fn judged(&mut self, set: &PolicySet, decision: &NameDecision) {
        let facts = decision.rule.map(|rule| set.rule(rule));
        self.record.policy = facts.map(|facts| facts.policy.to_string());
        self.record.rule = facts.map(|facts| facts.name.to_string());
        self.record.generation = decision.generation.0;
        self.conclude(decision.verdict, decision.reason);
        if decision.verdict != Verdict::Allowed {
            self.record.explanation = Some(explain(set, decision));
        }
    }

    /// The verdict where no rule was asked, or what became of it since.
    pub(super) fn conclude(&mut self, verdict: Verdict, reason: Reason) {
        (self.verdict, self.reason) = (verdict, reason);
        self.record.close_reason = match verdict {
            Verdict::Allowed | Verdict::WouldDeny => CloseReason::Done,
            Verdict::Denied => CloseReason::Denied,
        };
        self.record.explanation = (verdict != Verdict::Allowed).then(|| sentence(reason));
    }

    /// Allowed, but the resolvers could not tell.
    pub(super) fn unresolved(&mut self, reason: Reason) {
        self.reason = reason;
        self.record.close_reason = CloseReason::ConnectFailed;
        self.record.explanation = Some(sentence(reason));
    }

    /// Words beside the reason.
    pub(super) fn note(&mut self, text: String) {
        self.record.explanation = Some(text);
    }

    /// What was sent back.
    pub(super) fn answered(&mut self, told: &Told, bytes: usize) {
        self.answered = true;
        let (response, answers) = told.facts();
        let facts = self.facts();
        facts.response = response.to_owned();
        facts.answers = answers;
        self.record.bytes_received = bytes as u64;
    }

    fn facts(&mut self) -> &mut DnsFacts {
        let empty = || DnsFacts { question: String::new(), response: String::new(), answers: 0 };
        self.record.dns.get_or_insert_with(empty)
    }
}

impl Drop for QuestionRecord {
    fn drop(&mut self) {
        if !self.answered && self.record.close_reason == CloseReason::Done {
            // Its task was dropped while it waited: the proxy goes down.
            self.record.close_reason = CloseReason::Drained;
        }
        metrics::question(self.verdict, self.reason);
        self.record.verdict = metrics::verdict_word(self.verdict).to_owned();
        self.record.reason = self.reason.word().to_owned();
        self.record.duration_ms = clock::millis(self.started.elapsed());
        self.gate.access_log.write(self.record.clone());
    }
}

/// A reason in words, with what to do.
pub(super) fn sentence(reason: Reason) -> String {
    [reason.meaning(), reason.fix()].join(" ").trim_end().to_owned()
}

fn explain(set: &PolicySet, decision: &NameDecision) -> String {
    let mut text = sentence(decision.reason);
    if let Some(near) = decision.nearest {
        let facts = set.rule(near.rule);
        let lack = match near.failed {
            Predicate::Destination => "it names another destination",
            Predicate::Port => "it names another port",
            Predicate::Protocol => "it names another protocol",
            Predicate::Http => "it names other methods or paths",
            Predicate::Tls => "its TLS demands are not met",
            Predicate::Except => "it excepts this address",
        };
        let (name, policy, (file, line)) = (&facts.name, &facts.policy, &facts.place);
        text += &format!(" Nearest rule: `{name}` of policy `{policy}` ({file}:{line}), but {lack}.");
    }
    text
}
