//! Requests of HTTP: upgrades, limits, health probes, and what rules demand besides.

use super::build::*;
use crate::{
    Arrival, CanonicalPath, CompileOptions, Demands, Direction, HostEvidence, HostName, Observed,
    PathPattern, PolicySet, Reason, Request, Source, SpiffeId, Treatment, Upgrade,
    Verdict::{Allowed, Denied},
    decision::TlsMode,
    demands::{OriginTls, RequestLimit},
    document::{Destination, HttpMatch, Protocol, Rule, parse},
    request::HttpFacts,
};

fn entry(methods: &[&str], path: &str, upgrade: Option<Upgrade>) -> HttpMatch {
    HttpMatch {
        methods: methods.iter().map(|method| (*method).to_owned()).collect(),
        paths: vec![PathPattern::parse(path).expect("a pattern")],
        upgrade,
    }
}

fn http(rule: Rule<Destination>, entries: Vec<HttpMatch>) -> Rule<Destination> {
    Rule { protocol: Protocol::Http, tls: TlsMode::None, ports: vec![80..=80], http: entries, ..rule }
}

struct Asked {
    host: HostName,
    path: CanonicalPath,
}

impl Asked {
    fn new(path: &str) -> Self {
        Asked { host: name("a.example.com"), path: CanonicalPath::parse(path).expect("a path") }
    }

    fn request<'a>(&'a self, method: &'a str, upgrade: Option<Upgrade>) -> Request<'a> {
        Request {
            host: Some((HostEvidence::HttpAuthority, &self.host)),
            observed: Observed::Http,
            http: Some(HttpFacts { method, path: &self.path, upgrade, session: false }),
            ..to("8.8.8.8", 80)
        }
    }
}

fn asked(set: &PolicySet, method: &str, path: &str, upgrade: Option<Upgrade>) -> (crate::Verdict, Reason) {
    let decision = set.decide(&Asked::new(path).request(method, upgrade));
    (decision.verdict, decision.reason)
}

const WEBSOCKET: Option<Upgrade> = Some(Upgrade::WebSocket);

#[test]
fn only_an_entry_that_says_so_lets_a_request_become_a_websocket() {
    let web = || rule("web", vec![hosts(&["a.example.com"])]);
    let every = set_of(vec![http(web(), Vec::new())]);
    let paths = set_of(vec![http(web(), vec![entry(&["GET"], "/**", None)])]);
    for set in [&every, &paths] {
        assert_eq!(asked(set, "GET", "/live", None), (Allowed, Reason::RuleAllows));
        assert_eq!(asked(set, "GET", "/live", WEBSOCKET), (Denied, Reason::UpgradeNotAllowed));
    }
    let live = set_of(vec![http(web(), vec![entry(&[], "/live/**", WEBSOCKET)])]);
    assert_eq!(asked(&live, "GET", "/live/a", WEBSOCKET), (Allowed, Reason::RuleAllows));
    assert_eq!(asked(&live, "GET", "/other", WEBSOCKET), (Denied, Reason::UpgradeNotAllowed));
    // No handshake of RFC 6455, and no request without one.
    assert_eq!(asked(&live, "POST", "/live/a", WEBSOCKET), (Denied, Reason::UpgradeNotAllowed));
    assert_eq!(asked(&live, "GET", "/live/a", None), (Denied, Reason::HttpNotAllowed));
}

#[test]
fn no_deny_is_walked_round_by_asking_for_an_upgrade() {
    let web = http(rule("web", vec![hosts(&["a.example.com"])]), vec![entry(&[], "/**", WEBSOCKET)]);
    let admin = |upgrade| {
        http(deny("admin", vec![hosts(&["a.example.com"])]), vec![entry(&[], "/admin/**", upgrade)])
    };
    for upgrade in [None, WEBSOCKET] {
        let set = set_of(vec![web.clone(), admin(upgrade)]);
        assert_eq!(asked(&set, "GET", "/admin/x", WEBSOCKET), (Denied, Reason::RuleDenies));
        assert_eq!(asked(&set, "GET", "/x", WEBSOCKET), (Allowed, Reason::RuleAllows));
    }
    let plain = http(rule("plain", vec![hosts(&["a.example.com"])]), Vec::new());
    let set = set_of(vec![plain, admin(WEBSOCKET)]);
    assert_eq!(
        asked(&set, "GET", "/admin/x", None),
        (Allowed, Reason::RuleAllows),
        "it denies upgrades alone"
    );
}

fn limited(rule: Rule<Destination>, per_second: u32) -> Rule<Destination> {
    let limit = Some(RequestLimit { per_second, burst: per_second });
    Rule { demands: Demands { limit, ..Demands::default() }, ..rule }
}

fn deciding(set: &PolicySet, path: &str) -> Option<(String, Option<u32>)> {
    let rule = set.decide(&Asked::new(path).request("GET", None)).rule?;
    let limit = set.demands(rule).and_then(|demands| demands.limit);
    Some((set.rule(rule).name.to_string(), limit.map(|limit| limit.per_second)))
}

#[test]
fn no_equally_specific_rule_leads_round_a_limit() {
    let web = |name: &str, path: &str| {
        http(rule(name, vec![hosts(&["a.example.com"])]), vec![entry(&[], path, None)])
    };
    let set = set_of(vec![
        web("a-unlimited", "/**"),
        limited(web("b-fast", "/v1/**"), 100),
        limited(web("c-slow", "/v1/slow"), 5),
    ]);
    assert_eq!(deciding(&set, "/other"), Some(("a-unlimited".to_owned(), None)));
    assert_eq!(deciding(&set, "/v1/x"), Some(("b-fast".to_owned(), Some(100))));
    assert_eq!(deciding(&set, "/v1/slow"), Some(("c-slow".to_owned(), Some(5))));
}

#[test]
fn a_build_that_does_not_know_a_demand_denies_what_it_would_weaken() {
    let web = |per_second: Option<u32>| {
        let rule = http(rule("web", vec![hosts(&["a.example.com"])]), Vec::new());
        set_of(vec![match per_second {
            Some(rate) => limited(rule, rate),
            None => rule,
        }])
    };
    let (asked, careless) = (Asked::new("/"), |treatment: Treatment, _: &Demands| !treatment.demands);
    let request = asked.request("GET", None);
    assert_eq!(web(None).decide_for(&request, careless).reason, Reason::RuleAllows);
    assert_eq!(web(Some(9)).decide_for(&request, careless).reason, Reason::NotSupported);
    let explained = web(Some(9)).explain(&request).to_string();
    assert!(explained.contains("; at most 9 requests a second"), "{explained}");
}

#[test]
fn rules_that_believe_other_roots_for_the_same_host_disagree() {
    let to = |name: &str, roots: &str| {
        let origin = OriginTls { roots: Some(roots.into()), ..OriginTls::default() };
        let rule = http(rule(name, vec![hosts(&["a.example.com"])]), Vec::new());
        Rule { tls: TlsMode::Originate, demands: Demands { origin, ..Demands::default() }, ..rule }
    };
    let compiled = |rules| PolicySet::compile(&[document("p", rules)], &CompileOptions::default());
    assert!(compiled(vec![to("one", "x"), to("two", "x")]).is_ok());
    let refused = compiled(vec![to("one", "x"), to("two", "y")]).expect_err("a disagreement");
    assert_eq!(refused[0].code, "ambiguous-overlap");
}

const PROBED: &str = "apiVersion: sidegate.dev/v1
kind: Policy
metadata: { name: p }
spec:
  probes: [ { port: 8080, path: /healthz } ]
  ingress:
    - { name: never, action: deny, from: [ { cidrs: [ 10.9.0.0/16 ] } ], ports: [ \"1-65535\" ] }
    - { name: web, from: [ { workloads: [ \"spiffe://t/a\" ] } ], ports: [ 8080 ], protocol: http }
";

#[test]
fn a_probe_passes_by_exact_port_and_path_alone() {
    let set = set(&parse(&Source::new("p.yaml", PROBED)).expect("a policy"));
    let peer = SpiffeId::parse("spiffe://t/b").expect("an ID");
    let probe = Asked::new("/healthz");
    let from = |address: &str| Request {
        direction: Direction::Ingress,
        host: None,
        address: Some(ip(address)),
        port: 8080,
        arrival: Arrival::Plain,
        ..probe.request("GET", None)
    };
    assert_eq!(set.decide(&from("10.0.0.1")).reason, Reason::ProbeAllows);
    assert_eq!(set.decide(&from("10.9.0.1")).reason, Reason::RuleDenies);
    assert!(set.has_probe_at(8080) && !set.has_probe_at(8081));
    let (other, longer) = (Asked::new("/healthz/"), Asked::new("/healthz/x"));
    let near = from("10.0.0.1");
    for (what, request) in [
        ("another port", Request { port: 8081, ..near.clone() }),
        ("the way out", Request { direction: Direction::Egress, ..near.clone() }),
        ("within TLS", Request { observed: TLS13, ..near.clone() }),
        ("the connection alone", Request { http: None, ..near.clone() }),
        ("another identity", Request { peer: Some(&peer), ..near.clone() }),
        ("another method", Request { http: probe.request("POST", None).http, ..near.clone() }),
        ("an upgrade", Request { http: probe.request("GET", WEBSOCKET).http, ..near.clone() }),
        ("a slash more", Request { http: other.request("GET", None).http, ..near.clone() }),
        ("a longer path", Request { http: longer.request("GET", None).http, ..near.clone() }),
    ] {
        assert_eq!(set.decide(&request).verdict, Denied, "{what}");
    }
}
