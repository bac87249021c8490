//! Whether a request may pass: by the policy of the moment, and within the limit of its rule.

use std::{sync::Arc, time::Duration};

use hyper::header::HeaderValue;
use sidegate_policy::{Decision, PolicySet, Reason, RuleId, Verdict};

use super::exchange::Exchange;
use crate::{
    clock::today,
    connection::{
        Worker,
        decide::{Facts, Permit, decide},
        explain::in_words,
        live::Judgement,
    },
    limits::Limits,
};

/// Judges by the set of the moment.
pub(super) fn admit(exchange: &mut Exchange, facts: Arc<Facts>) -> Result<Permit, Refusal> {
    let Worker { gate, limits, .. } = &*exchange.client.worker;
    let record = &mut exchange.record;
    let outcome = {
        let set = gate.policies.current();
        let permit = decide(&set, facts)
            .map_err(|denied| Refusal { judgement: Judgement::of(&set, &denied.decision), wait: None })?;
        record.entry.permitted(&permit, Judgement::of(&set, permit.decision()));
        match over_limit(&set, &permit, limits) {
            Some((rule, _)) if set.audits(rule, today()) => {
                record.would_deny(Reason::LimitRequests, in_words(Reason::LimitRequests));
                Ok(permit)
            }
            Some((_, wait)) => {
                let (verdict, reason) = (Verdict::Denied, Reason::LimitRequests);
                let decision = Decision { verdict, reason, treatment: None, ..*permit.decision() };
                Err(Refusal { judgement: Judgement::of(&set, &decision), wait: Some(wait) })
            }
            None => Ok(permit),
        }
    };
    // A set that came between judging and registering has not seen this request.
    record.entry.catch_up(&gate.policies);
    outcome
}

/// A request that may not pass, or not yet.
pub(super) struct Refusal {
    pub(super) judgement: Judgement,
    /// How long until it may.
    pub(super) wait: Option<Duration>,
}

/// The rule whose limit a permitted request exceeds, and for how long.
fn over_limit(set: &PolicySet, permit: &Permit, limits: &Limits) -> Option<(RuleId, Duration)> {
    let decision = permit.decision();
    let rule = decision.rule.filter(|_| decision.verdict == Verdict::Allowed)?;
    let limit = permit.demands().limit?;
    let taken = limits.requests.take(permit.facts().direction(), set.rule(rule), limit);
    taken.err().map(|wait| (rule, wait))
}

/// `Retry-After` in whole seconds, never 0: RFC 9110 section 10.2.3.
pub(super) fn in_seconds(wait: Duration) -> HeaderValue {
    HeaderValue::from(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
}
