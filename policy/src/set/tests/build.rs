//! Small documents and requests for tests.

use std::{net::IpAddr, ops::RangeInclusive};

use ipnet::IpNet;

use crate::{
    Arrival, CompileOptions, Date, Decision, Demands, Direction, Document, HostEvidence, HostName,
    HostPattern, Observed, PolicySet, Reason, Request, Source, Verdict,
    decision::TlsMode,
    document::{Action, Destination, Protocol, Rule, Spanned},
};

pub(super) const TODAY: Date = Date::from_days(20_000);
pub(super) const TLS13: Observed = Observed::Tls { offers_tls13: true, ech: false };

fn spanned<T>(value: T) -> Spanned<T> {
    Spanned { value, span: 0..0 }
}

/// An allow rule for TLS on port 443; fields are changed by the caller.
pub(super) fn rule(name: &str, ends: Vec<Destination>) -> Rule<Destination> {
    Rule {
        name: spanned(name.to_owned()),
        reason: None,
        action: Action::Allow,
        ends: ends.into_iter().map(spanned).collect(),
        ports: vec![443..=443],
        protocol: Protocol::Tls,
        tls: TlsMode::Passthrough { min_tls12: false },
        demands: Demands::default(),
        http: Vec::new(),
        audit_until: None,
        span: 0..0,
    }
}

pub(super) fn deny(name: &str, ends: Vec<Destination>) -> Rule<Destination> {
    Rule { action: Action::Deny, ..rule(name, ends) }
}

pub(super) fn tcp(rule: Rule<Destination>, ports: RangeInclusive<u16>) -> Rule<Destination> {
    Rule { protocol: Protocol::Tcp, tls: TlsMode::None, ports: vec![ports], ..rule }
}

pub(super) fn udp(rule: Rule<Destination>, ports: RangeInclusive<u16>) -> Rule<Destination> {
    Rule { protocol: Protocol::Udp, tls: TlsMode::None, ports: vec![ports], ..rule }
}

pub(super) fn hosts(patterns: &[&str]) -> Destination {
    Destination::Hosts { hosts: patterns.iter().map(|text| pattern(text)).collect(), private: false }
}

pub(super) fn private_hosts(patterns: &[&str]) -> Destination {
    Destination::Hosts { hosts: patterns.iter().map(|text| pattern(text)).collect(), private: true }
}

pub(super) fn cidrs(nets: &[&str], except: &[&str]) -> Destination {
    let parse = |nets: &[&str]| nets.iter().map(|net| net.parse::<IpNet>().expect("a prefix")).collect();
    Destination::Cidrs { cidrs: parse(nets), except: parse(except) }
}

fn pattern(text: &str) -> HostPattern {
    HostPattern::parse_for_deny(text).expect("a host pattern")
}

pub(super) fn document(name: &str, egress: Vec<Rule<Destination>>) -> Document {
    Document {
        source: Source::new(format!("{name}.yaml"), ""),
        name: spanned(name.to_owned()),
        owner: None,
        description: None,
        applies_to: None,
        audit_until: None,
        probes: Vec::new(),
        egress,
        ingress: Vec::new(),
    }
}

pub(super) fn set(documents: &[Document]) -> PolicySet {
    PolicySet::compile(documents, &CompileOptions::default()).expect("documents that agree")
}

/// A set of one policy, `p`.
pub(super) fn set_of(egress: Vec<Rule<Destination>>) -> PolicySet {
    set(&[document("p", egress)])
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(super) fn name(text: &str) -> HostName {
    HostName::parse(text).expect("a host name")
}

/// TLS 1.3 with SNI, to port 443 of a public address.
pub(super) fn sni(host: &HostName) -> Request<'_> {
    Request { host: Some((HostEvidence::Sni, host)), observed: TLS13, ..to("8.8.8.8", 443) }
}

/// Opaque bytes to an address.
pub(super) fn to(address: &str, port: u16) -> Request<'static> {
    Request {
        direction: Direction::Egress,
        host: None,
        address: Some(ip(address)),
        port,
        observed: Observed::Opaque,
        peer: None,
        arrival: Arrival::Plain,
        http: None,
        today: TODAY,
    }
}

/// Verdict, reason and the deciding rule's name.
pub(super) fn verdict<'s>(set: &'s PolicySet, request: &Request<'_>) -> (Verdict, Reason, Option<&'s str>) {
    said(set, &set.decide(request))
}

pub(super) fn said<'s>(set: &'s PolicySet, decision: &Decision) -> (Verdict, Reason, Option<&'s str>) {
    assert_eq!(decision.treatment.is_some(), decision.verdict != Verdict::Denied, "{decision:?}");
    (decision.verdict, decision.reason, decision.rule.map(|rule| &*set.rule(rule).name))
}
