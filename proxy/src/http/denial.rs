//! What a denied HTTP client is told. Nothing that an attacker chose stands in it unescaped.

use serde::Serialize;
use sidegate_policy::{HostName, Reason, reason::Side};

/// A denial, in typed fields.
#[derive(Clone, Copy, Debug)]
pub struct Denial<'a> {
    /// Why.
    pub reason: Reason,
    /// The deciding rule, as `policy/rule`.
    pub rule: Option<&'a str>,
    /// The host that the request named.
    pub host: Option<&'a HostName>,
    /// What happened and which rule came closest; [`Reason::meaning`] where nothing better is known.
    pub explanation: Option<&'a str>,
    /// The request was `HEAD`: its answer has a length but no body (RFC 9110 section 9.3.2).
    pub head: bool,
}

#[derive(Serialize)]
struct Body<'a> {
    verdict: &'static str,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    explanation: &'a str,
    fix: &'static str,
    note: &'static str,
}

const POLICY_NOTE: &str = "Sidegate closed this connection because of policy. It is not a fault to work around: \
    another client, address or port will be denied as well. Ask the owner of the policy.";
const OTHER_NOTE: &str = "Sidegate closed this connection before anything was sent to the destination.";

impl Denial<'_> {
    /// A whole HTTP/1.1 response, after which the connection closes.
    pub fn http1(&self) -> Vec<u8> {
        let body = self.body();
        let (code, phrase) = self.status();
        let mut response = format!(
            "HTTP/1.1 {code} {phrase}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             cache-control: no-store\r\nconnection: close\r\n\r\n",
            body.len()
        )
        .into_bytes();
        if !self.head {
            response.extend_from_slice(&body);
        }
        response
    }

    pub(super) fn body(&self) -> Vec<u8> {
        let body = Body {
            verdict: "denied",
            reason: self.reason.word(),
            rule: self.rule,
            host: self.host.map(HostName::as_str),
            explanation: self.explanation.unwrap_or(self.reason.meaning()),
            fix: self.reason.fix(),
            note: if self.reason.side() == Side::Policy { POLICY_NOTE } else { OTHER_NOTE },
        };
        // Strings alone: serialising them can't fail.
        let mut json = serde_json::to_vec(&body).unwrap_or_default();
        json.push(b'\n');
        json
    }

    pub(super) fn status(&self) -> (u16, &'static str) {
        match (self.reason, self.reason.side()) {
            (Reason::HttpMalformed, _) => (400, "Bad Request"),
            (Reason::ClassifyTooLarge, _) => (431, "Request Header Fields Too Large"),
            (Reason::LimitRequests, _) => (429, "Too Many Requests"),
            (Reason::ClassifyTimeout, _) => (408, "Request Timeout"),
            (Reason::DialTimeout | Reason::ResolveTimeout, _) => (504, "Gateway Timeout"),
            (_, Side::Upstream | Side::Resolver) => (502, "Bad Gateway"),
            (Reason::NotSupported, _) => (403, "Forbidden"),
            (_, Side::Sidegate) => (503, "Service Unavailable"),
            _ => (403, "Forbidden"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denial(reason: Reason) -> Denial<'static> {
        Denial { reason, rule: None, host: None, explanation: None, head: false }
    }

    fn split(response: &[u8]) -> (String, serde_json::Value) {
        let text = std::str::from_utf8(response).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
        (head.to_owned(), serde_json::from_str(body).unwrap())
    }

    #[test]
    fn a_denial_names_verdict_reason_rule_host_and_fix() {
        let host = HostName::parse("api.example.com").unwrap();
        let denied =
            Denial { rule: Some("payments/no-stripe"), host: Some(&host), ..denial(Reason::RuleDenies) };
        let (head, body) = split(&denied.http1());
        assert!(head.starts_with("HTTP/1.1 403 Forbidden\r\n"));
        assert!(head.contains("connection: close"));
        assert_eq!(body["verdict"], "denied");
        assert_eq!(body["reason"], "rule-denies");
        assert_eq!(body["rule"], "payments/no-stripe");
        assert_eq!(body["host"], "api.example.com");
        assert_eq!(body["fix"], Reason::RuleDenies.fix());
        assert!(body["note"].as_str().unwrap().contains("not a fault to work around"));
    }

    #[test]
    fn every_reason_renders_and_hostile_text_stays_a_string() {
        for reason in Reason::ALL {
            let hostile = "\"}\r\n\r\nHTTP/1.1 200 OK\r\n\r\n<script>\u{0}\u{1b}[2J";
            let (_, body) = split(&Denial { explanation: Some(hostile), ..denial(*reason) }.http1());
            assert_eq!(body["explanation"], hostile);
            assert_eq!(body["reason"], reason.word());
        }
    }

    #[test]
    fn head_gets_the_length_without_the_body() {
        let full = denial(Reason::NoRule).http1();
        let head = Denial { head: true, ..denial(Reason::NoRule) }.http1();
        assert!(head.ends_with(b"\r\n\r\n") && full.starts_with(&head) && full.len() > head.len());
    }

    #[test]
    fn the_status_names_the_side_at_fault() {
        let code = |reason| denial(reason).status().0;
        assert_eq!(code(Reason::HostMismatch), 403);
        assert_eq!(code(Reason::HttpMalformed), 400);
        assert_eq!(code(Reason::DialRefused), 502);
        assert_eq!(code(Reason::LimitConnections), 503);
    }
}
