//! Connections towards the workload: by what they are refused, whose TLS is ended, and whose bytes are read.

use super::build::*;
use crate::{
    Arrival, Direction, Observed, Peek, PolicySet, Reason, Request, Source, SpiffeId,
    Verdict::{self, Allowed, Denied},
    decision::{Dial, TlsMode},
    document::parse,
};

fn ingress(rules: &str) -> PolicySet {
    let text = format!(
        "apiVersion: sidegate.dev/v1\nkind: Policy\nmetadata: {{ name: p }}\nspec:\n  \
         probes: [ {{ port: 9000, path: /healthz }} ]\n  ingress:\n{rules}"
    );
    set(&parse(&Source::new("p.yaml", text)).unwrap_or_else(|errors| panic!("{errors:#?}")))
}

fn from(address: &str, port: u16, observed: Observed, arrival: Arrival) -> Request<'static> {
    Request { direction: Direction::Ingress, observed, arrival, ..to(address, port) }
}

fn judged(set: &PolicySet, request: &Request<'_>) -> (Verdict, Reason) {
    let decision = set.decide(request);
    (decision.verdict, decision.reason)
}

const MESH: &str =
    "    - { name: web, from: [ { workloads: [ \"spiffe://t/a\" ] } ], ports: [ 8080 ], protocol: tcp }
    - { name: near, from: [ { cidrs: [ 10.0.0.0/8 ] } ], ports: [ 8081 ], protocol: tcp, tls: { mode: mesh } }
";

#[test]
fn what_demands_the_mesh_is_reached_by_the_mesh_alone() {
    let set = ingress(MESH);
    let (a, b) = (SpiffeId::parse("spiffe://t/a").unwrap(), SpiffeId::parse("spiffe://t/b").unwrap());
    for observed in [TLS13, Observed::Http, Observed::Opaque] {
        for port in [8080, 8081] {
            let plain = from("10.0.0.1", port, observed, Arrival::Plain);
            assert_eq!(judged(&set, &plain), (Denied, Reason::MeshRequired), "{observed:?}");
            let ended = Request { arrival: Arrival::Terminated, peer: Some(&a), ..plain };
            assert_eq!(judged(&set, &ended), (Denied, Reason::MeshRequired), "a proof outside the mesh");
        }
    }
    let stream = Request { peer: Some(&a), ..from("10.0.0.1", 8080, Observed::Opaque, Arrival::Mesh) };
    assert_eq!(judged(&set, &stream), (Allowed, Reason::RuleAllows));
    let treatment = set.decide(&stream).treatment.expect("it is carried");
    assert_eq!((treatment.dial, treatment.tls), (Dial::OriginalDestination, TlsMode::Mesh));
    let other = Request { peer: Some(&b), ..stream.clone() };
    let far = Request { peer: Some(&b), ..from("11.0.0.1", 8080, Observed::Opaque, Arrival::Mesh) };
    assert_eq!(judged(&set, &far), (Denied, Reason::PeerNotAllowed));
    assert_eq!(judged(&set, &Request { port: 8081, ..other }), (Allowed, Reason::RuleAllows));
    assert_eq!(judged(&set, &Request { port: 8082, ..stream }), (Denied, Reason::NoRule));
}

const TERMINATE: &str = "    - { name: all, from: [ { cidrs: [ 10.0.0.0/8 ] } ], ports: [ 443 ] }
    - { name: site, from: [ { cidrs: [ 10.1.0.0/16 ] } ], ports: [ 443 ], protocol: http, tls: { mode: terminate } }
    - { name: any, from: [ { cidrs: [ 10.2.0.0/16 ] } ], ports: [ 443 ], tls: { mode: terminate } }
    - { name: own, from: [ { cidrs: [ 10.2.3.0/24 ] } ], ports: [ 443 ] }
";

#[test]
fn tls_is_ended_where_the_most_specific_rule_says_so() {
    let set = ingress(TERMINATE);
    let ends = |address: &str, observed| set.terminates(&from(address, 443, observed, Arrival::Plain));
    assert!(!ends("10.0.0.1", TLS13), "passed through");
    assert!(ends("10.1.0.1", TLS13) && ends("10.2.0.1", TLS13));
    assert!(!ends("10.2.3.1", TLS13), "a more specific rule passes it through");
    assert!(!ends("10.1.0.1", Observed::Http) && !ends("10.1.0.1", Observed::Opaque), "there is none");
    assert!(!set.terminates(&from("10.1.0.1", 443, TLS13, Arrival::Terminated)), "once");
    for (address, observed, arrival, expected) in [
        ("10.1.0.1", Observed::Http, Arrival::Plain, (Denied, Reason::TlsRequired)),
        ("10.1.0.1", Observed::Http, Arrival::Terminated, (Allowed, Reason::RuleAllows)),
        ("10.1.0.1", Observed::Opaque, Arrival::Terminated, (Denied, Reason::ProtocolMismatch)),
        ("10.2.0.1", Observed::Opaque, Arrival::Plain, (Denied, Reason::TlsRequired)),
        ("10.2.0.1", Observed::Opaque, Arrival::Terminated, (Allowed, Reason::RuleAllows)),
        ("10.2.0.1", Observed::Http, Arrival::Terminated, (Allowed, Reason::RuleAllows)),
    ] {
        let request = from(address, 443, observed, arrival);
        assert_eq!(judged(&set, &request), expected, "{address} {observed:?} {arrival:?}");
    }
}

#[test]
fn bytes_are_read_where_a_verdict_may_rest_on_them() {
    let set = ingress(&format!(
        "{MESH}{TERMINATE}    - {{ name: db, from: [ {{ cidrs: [ 10.0.0.0/8 ] }} ], ports: [ 5432, 9000 ], \
         protocol: tcp, tls: {{ mode: none }}, reason: it speaks first }}\n"
    ));
    let a = SpiffeId::parse("spiffe://t/a").unwrap();
    let peek = |address: &str, port, arrival, peer| {
        set.peek_inbound(&Request { peer, ..from(address, port, Observed::Opaque, arrival) })
    };
    assert_eq!(peek("10.0.0.1", 5432, Arrival::Plain, None), Peek::Unneeded);
    assert_eq!(peek("11.0.0.1", 5432, Arrival::Plain, None), Peek::Brief);
    assert_eq!(peek("10.0.0.1", 9000, Arrival::Plain, None), Peek::Needed, "a probe comes there");
    assert_eq!(peek("10.0.0.1", 443, Arrival::Plain, None), Peek::Needed);
    assert_eq!(peek("10.1.0.1", 443, Arrival::Terminated, None), Peek::Needed);
    assert_eq!(peek("10.0.0.1", 8080, Arrival::Plain, None), Peek::Brief);
    assert_eq!(peek("10.0.0.1", 8080, Arrival::Mesh, Some(&a)), Peek::Unneeded);
}

fn terminate(name: &str, more: &str) -> String {
    format!("    - {{ name: {name}, from: [ {{ cidrs: [ 10.1.0.0/16 ] }} ], ports: [ 443 ], {more} }}\n")
}

#[test]
fn the_rule_that_ends_tls_names_what_clients_are_shown() {
    let shop = terminate("shop", "tls: { mode: terminate, certificate: shop }");
    let set = ingress(&format!("{shop}{}", TERMINATE.replace("10.1.0.0/16", "10.1.2.0/24")));
    let shown = |address: &str| {
        let demands = set.terminating(&from(address, 443, TLS13, Arrival::Plain))?;
        Some(demands.certificate.as_deref())
    };
    assert_eq!(shown("10.1.0.1"), Some(Some("shop")));
    assert_eq!(shown("10.1.2.1"), Some(None), "the workload's own");
    assert_eq!(shown("10.0.0.1"), None, "passed through");
    assert_eq!(
        set.certificates().map(|(rule, label)| (&*rule.name, label)).collect::<Vec<_>>(),
        [("shop", "shop")]
    );
    let explained = set.explain(&from("10.1.0.1", 443, Observed::Opaque, Arrival::Terminated)).to_string();
    assert!(
        explained.contains("TLS ends here; ")
            && explained.contains("; clients are shown the certificate `shop`"),
        "{explained}"
    );
}

#[test]
fn rules_that_show_other_certificates_to_the_same_clients_disagree() {
    let compiled = |one: &str, two: &str| {
        let rules = terminate("one", one) + &terminate("two", two);
        let text = format!(
            "apiVersion: sidegate.dev/v1\nkind: Policy\nmetadata: {{ name: p }}\nspec:\n  ingress:\n{rules}"
        );
        let documents = parse(&Source::new("p.yaml", text)).unwrap_or_else(|errors| panic!("{errors:#?}"));
        PolicySet::compile(&documents, &crate::CompileOptions::default()).map_err(|found| found[0].code)
    };
    let (x, y) =
        ("tls: { mode: terminate, certificate: one }", "tls: { mode: terminate, certificate: other }");
    let own = "tls: { mode: terminate }";
    assert!(compiled(x, x).is_ok());
    for (one, two) in [(x, y), (y, x), (x, own), (own, y)] {
        assert_eq!(compiled(one, two).err(), Some("ambiguous-overlap"), "{one} {two}");
    }
    // Nobody knows what is inside before the handshake.
    let http = |tls: &str| format!("protocol: http, {tls}");
    assert_eq!(compiled(x, &http(y)).err(), Some("ambiguous-overlap"));
    assert_eq!(compiled(&http(x), &http(y)).err(), Some("ambiguous-overlap"));
    assert!(compiled(&http(x), &http(x)).is_ok());
}
