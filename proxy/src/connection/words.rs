//! What a refused client is told, in the protocol that it speaks.

use sidegate_policy::{Observed, Reason, Verdict, reason::Side};

use super::{decide::Facts, live::Judgement, observe::Early};
use crate::{
    http::denial::Denial,
    tls::server_gate::{ACCESS_DENIED_ALERT, PROTOCOL_VERSION_ALERT},
};

/// The last words to a client.
pub(crate) enum Words {
    /// In the protocol it speaks.
    Say(Vec<u8>),
    /// By a reset.
    Reset,
}

impl Words {
    /// For a connection that was denied before anything was dialled.
    pub(crate) fn for_denial(facts: &Facts, early: &Early, judgement: &Judgement) -> Words {
        let speaks_tls =
            matches!(facts.observed, Observed::Tls { .. }) || early.bytes.starts_with(&[0x16, 3]);
        match judgement.reason {
            Reason::TlsVersionClient => Words::Say(PROTOCOL_VERSION_ALERT.to_vec()),
            _ if speaks_tls => Words::Say(ACCESS_DENIED_ALERT.to_vec()),
            _ if speaks_http(facts) => Words::Say(http(facts, early, judgement)),
            _ => Words::Reset,
        }
    }

    /// For a connection that was permitted and then not made. Where the far end or the resolver failed the client sees
    /// what it would see of them, a close: no answer of ours may pass for theirs.
    pub(crate) fn for_failure(facts: &Facts, early: &Early, judgement: &Judgement) -> Words {
        match facts.observed {
            _ if judgement.verdict != Verdict::Denied => Words::Reset,
            Observed::Tls { .. } if judgement.reason.side() == Side::Policy => {
                Words::Say(ACCESS_DENIED_ALERT.to_vec())
            }
            Observed::Http => Words::Say(http(facts, early, judgement)),
            _ => Words::Reset,
        }
    }
}

/// HTTP was recognised, or refused for a fault that only HTTP can have.
fn speaks_http(facts: &Facts) -> bool {
    facts.observed == Observed::Http
        || matches!(facts.flaw, Some(Reason::HttpMalformed | Reason::HostMismatch | Reason::HostInvalid))
}

fn http(facts: &Facts, early: &Early, judgement: &Judgement) -> Vec<u8> {
    let rule = judgement.policy.as_deref().zip(judgement.rule.as_deref());
    let rule = rule.map(|(policy, rule)| format!("{policy}/{rule}"));
    let denial = Denial {
        reason: judgement.reason,
        rule: rule.as_deref(),
        host: facts.host.as_ref().map(|(_, host)| host),
        explanation: judgement.explanation.as_deref(),
        head: early.bytes.starts_with(b"HEAD "),
    };
    denial.http1()
}
