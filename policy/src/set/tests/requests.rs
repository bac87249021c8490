//! Requests of HTTP: upgrades.

use super::build::*;
use crate::{
    CanonicalPath, HostEvidence, HostName, Observed, PathPattern, PolicySet, Reason, Request, Upgrade,
    Verdict::{Allowed, Denied},
    decision::TlsMode,
    document::{Destination, HttpMatch, Protocol, Rule},
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
            http: Some(HttpFacts { method, path: &self.path, upgrade }),
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
