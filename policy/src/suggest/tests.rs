use std::net::IpAddr;

use super::*;
use crate::{
    Arrival, CompileOptions, Date, HostEvidence, PolicySet, Source, Verdict,
    document::{self, Document},
};

const TLS: Observed = Observed::Tls { offers_tls13: true, ech: false };
const TLS12: Observed = Observed::Tls { offers_tls13: false, ech: false };

fn request<'a>(host: Option<&'a HostName>, address: &str, port: u16, observed: Observed) -> Request<'a> {
    let evidence = match observed {
        Observed::Tls { .. } => HostEvidence::Sni,
        Observed::Http => HostEvidence::HttpAuthority,
        _ => HostEvidence::Synthetic,
    };
    Request {
        direction: Direction::Egress,
        host: host.map(|host| (evidence, host)),
        address: address.parse::<IpAddr>().ok(),
        port,
        observed,
        peer: None,
        arrival: Arrival::Plain,
        http: None,
        today: Date::from_days(20_000),
    }
}

fn loaded(text: &str) -> (Vec<Document>, PolicySet) {
    let documents =
        document::parse(&Source::new("made.yaml", text)).unwrap_or_else(|wrong| panic!("{wrong:?}\n{text}"));
    let set = PolicySet::compile(&documents, &CompileOptions::default());
    let set = set.unwrap_or_else(|wrong| panic!("{wrong:?}\n{text}"));
    (documents, set)
}

fn proposals(requests: &[Request<'_>]) -> Proposals {
    let mut proposals = Proposals::default();
    requests.iter().for_each(|request| proposals.add(Proposal::of(request).unwrap()));
    proposals
}

#[test]
fn a_document_of_everything_loads_and_allows_just_that() {
    let names = ["api.example.com", "yes", "1.example.com", "a-b.example.com", "a.b.example.com"];
    let hosts = names.map(|name| HostName::parse(name).unwrap());
    let mut seen: Vec<Request<'_>> = Vec::new();
    for host in &hosts {
        seen.push(request(Some(host), "8.8.8.8", 443, TLS));
        seen.push(request(Some(host), "8.8.8.8", 8443, TLS12));
        seen.push(request(Some(host), "10.0.0.1", 80, Observed::Http));
        seen.push(request(Some(host), "", 5432, Observed::Opaque));
    }
    seen.push(request(None, "8.8.8.8", 22, Observed::Opaque));
    seen.push(request(None, "2606:2800::1", 443, TLS));
    seen.push(request(None, "8.8.8.8", 123, Observed::Udp));
    seen.push(request(None, "169.254.169.254", 80, Observed::Http));

    let (documents, set) = loaded(&proposals(&seen).document("./make it.sh", "what `make` \"needs\"\n"));
    assert_eq!(documents[0].name.value, "make-it-sh");
    for request in &seen {
        assert_eq!(set.decide(request).verdict, Verdict::Allowed, "{request:?}");
        let elsewhere = Request { port: 9999, ..request.clone() };
        assert_eq!(set.decide(&elsewhere).verdict, Verdict::Denied, "{elsewhere:?}");
    }
    let other = HostName::parse("evil.example.com").unwrap();
    assert_eq!(set.decide(&request(Some(&other), "8.8.4.4", 443, TLS)).verdict, Verdict::Denied);
}

#[test]
fn one_port_gets_one_rule_with_the_weaker_demands_and_lends_them_to_no_other() {
    let host = HostName::parse("api.example.com").unwrap();
    let text = proposals(&[
        request(Some(&host), "8.8.8.8", 443, TLS),
        request(Some(&host), "10.0.0.1", 443, TLS12),
        request(Some(&host), "8.8.8.8", 8443, TLS),
        request(Some(&host), "8.8.8.8", 9443, TLS),
    ])
    .egress(0);
    assert_eq!(
        text,
        "- name: api-example-com-443\n  to: [ { hosts: [ api.example.com ], private: true } ]\n  ports: [ 443 ]\n  \
         tls: { mode: passthrough, min: \"1.2\" }\n  reason: \"say why this needs no TLS 1.3\"\n\
         - name: api-example-com-8443\n  to: [ { hosts: [ api.example.com ] } ]\n  ports: [ 8443, 9443 ]\n"
    );
}

#[test]
fn a_guessed_name_lends_no_port_to_what_was_shown() {
    let host = HostName::parse("db.example.com").unwrap();
    let opaque = |port| Proposal::of(&request(Some(&host), "8.8.8.8", port, Observed::Opaque)).unwrap();
    let mut proposals = Proposals::default();
    [opaque(5432).guessed(), opaque(8080).guessed(), opaque(8080), opaque(8081)]
        .into_iter()
        .for_each(|proposal| proposals.add(proposal));
    let (documents, _) = loaded(&proposals.document("", ""));
    let ports: Vec<_> = documents[0].egress.iter().map(|rule| rule.ports.clone()).collect();
    assert_eq!(ports, [vec![8080..=8080, 8081..=8081], vec![5432..=5432]]);
}

#[test]
fn a_silent_connection_beside_a_recognised_one_adds_no_rule() {
    let host = HostName::parse("api.example.com").unwrap();
    let silent = request(Some(&host), "8.8.8.8", 443, Observed::Opaque);
    assert!(proposals(std::slice::from_ref(&silent)).egress(0).contains("protocol: tcp"));
    let both = proposals(&[silent, request(Some(&host), "8.8.8.8", 443, TLS)]);
    assert!(!both.egress(0).contains("tcp"), "{}", both.egress(0));
}

#[test]
fn private_is_offered_for_addresses_that_it_opens_and_for_no_others() {
    let host = HostName::parse("db.example.com").unwrap();
    let suggested = |address| suggest_rule(&request(Some(&host), address, 443, TLS));
    for opened in ["10.0.0.1", "100.64.0.1", "fd12::1"] {
        assert!(suggested(opened).contains("private: true"), "{opened}");
    }
    assert!(!suggested("8.8.8.8").contains("private"));
    for closed in
        ["127.0.0.1", "169.254.1.1", "198.18.0.1", "240.0.0.1", "192.88.99.1", "64:ff9b::a00:1", "fec0::1"]
    {
        assert!(suggested(closed).starts_with("# no rule opens"), "{closed}: {}", suggested(closed));
    }
}

#[test]
fn names_of_rules_are_unique_and_short() {
    let long = format!("{}.{}.example.com", "a".repeat(60), "b".repeat(60));
    let longs = ["x", "y"].map(|end| HostName::parse(&format!("{long}.{end}")).unwrap());
    let text =
        proposals(&longs.each_ref().map(|host| request(Some(host), "8.8.8.8", 443, TLS))).document("", "");
    let (documents, _) = loaded(&text);
    assert_eq!(documents[0].egress.len(), 2);
    assert_eq!(documents[0].name.value, "policy");
}
