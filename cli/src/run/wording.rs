//! Records in words, for people. Everything that came off the network is escaped.

use sidegate_api::AccessRecord;
use sidegate_policy::Reason;
use sidegate_proxy::redirect::Datagrams;

/// `tls api.example:443`, `dns A evil.example`, `udp 192.0.2.1:443`.
pub(super) fn destination(record: &AccessRecord) -> String {
    match &record.dns {
        Some(dns) => format!("dns {} {}", plain(&dns.question), place(record)),
        None => format!("{} {}", plain(&record.protocol), place(record)),
    }
}

/// `api.example:443`, `192.0.2.1:443`; of a question the name alone.
pub(super) fn place(record: &AccessRecord) -> String {
    match (&record.host, record.original_dst) {
        (Some(host), Some(original)) if record.dns.is_none() => {
            format!("{}:{}", plain(host), original.port())
        }
        (Some(host), _) => plain(host),
        (None, Some(original)) => original.to_string(),
        (None, None) => "?".to_owned(),
    }
}

/// The explanation that the record carries, else the meaning of its reason.
pub(super) fn why(record: &AccessRecord) -> String {
    let meaning = || {
        Reason::from_word(&record.reason)
            .map_or_else(|| plain(&record.reason), |reason| reason.meaning().to_owned())
    };
    record.explanation.as_deref().map_or_else(meaning, |explanation| plain(&under_run(record, explanation)))
}

/// An explanation with the advice that holds for a run.
fn under_run(record: &AccessRecord, explanation: &str) -> String {
    match Reason::from_word(&record.reason) {
        Some(reason) if !reason.fix().is_empty() => explanation.replacen(reason.fix(), told(reason)[1], 1),
        _ => explanation.to_owned(),
    }
}

/// What the explanation says beyond the meaning and the fix of its reason, such as the nearest rule.
pub(super) fn particulars(record: &AccessRecord) -> Option<String> {
    let explanation = under_run(record, record.explanation.as_deref()?);
    let reason = Reason::from_word(&record.reason);
    let rest = match reason {
        Some(reason) => told(reason)
            .into_iter()
            .filter(|sentence| !sentence.is_empty())
            .fold(explanation, |rest, sentence| rest.replacen(sentence, "", 1)),
        None => explanation,
    };
    let rest = rest.split_whitespace().collect::<Vec<_>>().join(" ");
    // What stood before the meaning led to it.
    let rest = rest.trim_end_matches(':');
    (!rest.is_empty()).then(|| plain(rest))
}

/// What a reason means under `run`, and what to do.
pub(super) fn told(reason: Reason) -> [&'static str; 2] {
    match reason {
        Reason::UdpRefused => Datagrams::Never.advice(),
        // A setting of the sidecar's.
        Reason::DnsBudget => [
            reason.meaning(),
            "Name the hosts exactly; a run has no setting for this budget, the sidecar has (`dns.namesPerMinute`).",
        ],
        _ => [reason.meaning(), reason.fix()],
    }
}

/// Control characters never reach the terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use sidegate_api::{CloseReason, access_record::SCHEMA};

    use super::*;

    /// A denied TLS connection.
    pub(crate) fn denied(host: &str, port: u16) -> AccessRecord {
        AccessRecord {
            schema: SCHEMA.into(),
            time: "2026-11-24T10:11:12.345Z".into(),
            direction: "egress".into(),
            workload: None,
            source: None,
            original_dst: Some(([192, 0, 2, 7], port).into()),
            upstream: None,
            host: Some(host.into()),
            protocol: "tls".into(),
            tls: None,
            dns: None,
            http: None,
            verdict: "denied".into(),
            policy: None,
            rule: None,
            reason: "no-rule".into(),
            explanation: None,
            generation: 1,
            bytes_sent: 0,
            bytes_received: 0,
            duration_ms: 0.5,
            close_reason: CloseReason::Denied,
        }
    }

    #[test]
    fn hostile_names_are_escaped() {
        assert_eq!(destination(&denied("a\x1b[2Jb", 1)), "tls a\\u{1b}[2Jb:1");
    }
}
