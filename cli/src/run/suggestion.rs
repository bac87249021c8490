//! For each denial, the rule that would allow it.

use std::{collections::BTreeSet, net::SocketAddr};

use sidegate_api::AccessRecord;
use sidegate_policy::{HostName, Reason};

/// Rules in YAML, ready to stand under `spec.egress`; `None` when no rule would help.
pub(super) fn rules<'a>(refused: impl Iterator<Item = &'a AccessRecord>) -> Option<String> {
    let rules: BTreeSet<Rule> = refused.filter_map(rule).collect();
    // A connection's rule names its port; the question that came before it adds nothing.
    let asked_only = |rule: &Rule| {
        !rule.asked
            || !rules.iter().any(|other| !other.asked && other.host.is_some() && other.host == rule.host)
    };
    let text: String = rules.iter().filter(|rule| asked_only(rule)).map(Rule::yaml).collect();
    (!text.is_empty()).then_some(text)
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rule {
    host: Option<String>,
    address: Option<SocketAddr>,
    port: u16,
    protocol: &'static str,
    /// Learnt from a DNS question alone.
    asked: bool,
}

/// Reasons that another rule answers; the others need another client, server or resolver.
fn answered_by_a_rule(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::NoRule
            | Reason::NoPolicy
            | Reason::NameNotAllowed
            | Reason::HostMissing
            | Reason::ProtocolMismatch
    )
}

fn rule(record: &AccessRecord) -> Option<Rule> {
    if !Reason::from_word(&record.reason).is_some_and(answered_by_a_rule) {
        return None;
    }
    let host = record
        .host
        .as_deref()
        .and_then(|host| HostName::parse(host).ok())
        .map(|host| host.as_str().to_owned());
    let asked = record.dns.is_some();
    let protocol = match record.protocol.as_str() {
        "tls" | "dns" => "tls",
        "http" => "http",
        "tcp" => "tcp",
        _ => return None,
    };
    let address = record.original_dst.filter(|_| host.is_none() && !asked);
    let port = if asked { 443 } else { record.original_dst?.port() };
    (host.is_some() || address.is_some()).then_some(Rule { host, address, port, protocol, asked })
}

impl Rule {
    fn yaml(&self) -> String {
        let (name, to) = match (&self.host, self.address) {
            (Some(host), _) => (host.replace('.', "-"), format!("hosts: [ {host} ]")),
            (None, Some(address)) => {
                let ip = address.ip();
                let bits = if ip.is_ipv4() { 32 } else { 128 };
                (ip.to_string().replace(['.', ':'], "-"), format!("cidrs: [ \"{ip}/{bits}\" ]"))
            }
            (None, None) => return String::new(),
        };
        let name: String = format!("{name}-{}", self.port)
            .chars()
            .rev()
            .take(63)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect();
        let mut yaml = format!("    - name: {}\n", name.trim_matches('-'));
        if self.protocol != "tls" {
            yaml.push_str("      reason: \"say why this may go without TLS\"\n");
        }
        yaml.push_str(&format!("      to: [ {{ {to} }} ]\n      ports: [ {} ]\n", self.port));
        if self.protocol != "tls" {
            yaml.push_str(&format!("      protocol: {}\n      tls: {{ mode: none }}\n", self.protocol));
        }
        yaml
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::wording::tests::denied;

    #[test]
    fn a_connection_by_name_and_its_question_make_one_rule() {
        let mut question = denied("evil.example", 53);
        question.dns = Some(sidegate_api::access_record::DnsFacts {
            question: "A".into(),
            response: "REFUSED".into(),
            answers: 0,
        });
        question.protocol = "dns".into();
        question.reason = "name-not-allowed".into();
        let connection = denied("evil.example", 8443);
        assert_eq!(
            rules([&question, &connection].into_iter()).unwrap(),
            "    - name: evil-example-8443\n      to: [ { hosts: [ evil.example ] } ]\n      ports: [ 8443 ]\n"
        );
        assert!(rules(std::iter::once(&question)).unwrap().contains("ports: [ 443 ]"));
    }

    #[test]
    fn an_exemption_from_tls_asks_for_its_reason() {
        let mut plain = denied("db.example", 5432);
        plain.protocol = "tcp".into();
        plain.host = None;
        let yaml = rules(std::iter::once(&plain)).unwrap();
        assert!(yaml.contains("cidrs: [ \"192.0.2.7/32\" ]") && yaml.contains("reason: "), "{yaml}");
    }

    #[test]
    fn no_rule_is_offered_where_none_helps() {
        let mut old = denied("old.example", 443);
        old.reason = "tls-version-server".into();
        let mut hostile = denied("x } ]\n- y", 443);
        hostile.original_dst = None;
        assert_eq!(rules([&old, &hostile].into_iter()), None);
    }
}
