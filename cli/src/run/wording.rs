//! Records in words, for people. Everything that came off the network is escaped.

use sidegate_api::AccessRecord;
use sidegate_policy::Reason;

/// `tls api.example:443`, `dns A evil.example`, `udp 192.0.2.1:443`.
pub(super) fn destination(record: &AccessRecord) -> String {
    if let Some(dns) = &record.dns {
        return format!("dns {} {}", plain(&dns.question), plain(record.host.as_deref().unwrap_or("?")));
    }
    let place = match (&record.host, record.original_dst) {
        (Some(host), Some(original)) => format!("{}:{}", plain(host), original.port()),
        (Some(host), None) => plain(host),
        (None, Some(original)) => original.to_string(),
        (None, None) => "?".to_owned(),
    };
    format!("{} {place}", plain(&record.protocol))
}

/// The explanation that the record carries, else the meaning of its reason.
pub(super) fn why(record: &AccessRecord) -> String {
    let meaning = || {
        Reason::from_word(&record.reason)
            .map_or_else(|| plain(&record.reason), |reason| reason.meaning().to_owned())
    };
    record.explanation.as_deref().map_or_else(meaning, plain)
}

/// Control characters never reach the terminal.
fn plain(text: &str) -> String {
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
