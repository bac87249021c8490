use crate::{CompileOptions, Date, PolicySet, Source, document::parse};

use super::{Kind, compare};

fn set(egress: &str) -> PolicySet {
    let text = format!(
        "apiVersion: sidegate.dev/v1\nkind: Policy\nmetadata: {{ name: p }}\nspec:\n  egress:\n{egress}"
    );
    let documents =
        parse(&Source::new("p.yaml", text.as_str())).unwrap_or_else(|errors| panic!("{errors:#?}"));
    PolicySet::compile(&documents, &CompileOptions::default()).expect("rules that agree")
}

fn shown(old: &str, new: &str) -> String {
    compare(&set(old), &set(new), Date::from_days(20_000)).to_string()
}

const WEB: &str = "    - { name: web, to: [ { hosts: [ \"*.example.com\" ] } ], ports: [ 443 ] }\n";

#[test]
fn the_same_differs_in_nothing() {
    assert_eq!(shown(WEB, WEB), "The two say the same.\n");
    let renamed = WEB.replace("web", "other");
    assert_eq!(shown(WEB, &renamed), "The two say the same.\n", "a name changes nothing");
}

#[test]
fn an_added_allow_becomes_reachable_and_back() {
    let more = format!(
        "{WEB}    - {{ name: api, to: [ {{ hosts: [ api.example.org ] }} ], ports: [ 443, \"8000-8100\" ] }}\n"
    );
    assert_eq!(
        shown(WEB, &more),
        "becomes reachable:\n  + tls to api.example.org ports 443, 8000-8100   by p/api (p.yaml:7)\n"
    );
    assert_eq!(
        shown(&more, WEB),
        "no longer reachable:\n  - tls to api.example.org ports 443, 8000-8100   was allowed by p/api (p.yaml:7)\n"
    );
}

#[test]
fn a_deny_inside_a_wildcard_takes_just_its_part() {
    let deny = format!(
        "{WEB}    - {{ name: block, action: deny, to: [ {{ hosts: [ bad.example.com ] }} ], ports: [ 443 ] }}\n"
    );
    assert_eq!(
        shown(WEB, &deny),
        "no longer reachable:\n  - tls to bad.example.com port 443   denied by p/block (p.yaml:7)\n"
    );
}

#[test]
fn an_allow_under_an_existing_deny_changes_nothing() {
    let deny = format!(
        "{WEB}    - {{ name: block, action: deny, to: [ {{ cidrs: [ 10.0.0.0/8 ] }} ], ports: [ \"1-65535\" ] }}\n"
    );
    let allow = format!("{deny}    - {{ name: in, to: [ {{ cidrs: [ 10.1.0.0/16 ] }} ], ports: [ 443 ] }}\n");
    assert_eq!(shown(&deny, &allow), "The two say the same.\n");
}

#[test]
fn prefixes_are_cut_where_rules_end() {
    let narrow =
        "    - { name: net, to: [ { cidrs: [ 8.0.0.0/24 ], except: [ 8.0.0.128/25 ] } ], ports: [ 443 ] }\n";
    let wide = "    - { name: net, to: [ { cidrs: [ 8.0.0.0/24 ] } ], ports: [ 443 ] }\n";
    assert_eq!(
        shown(narrow, wide),
        "becomes reachable:\n  + tls to 8.0.0.128/25 port 443   by p/net (p.yaml:6)\n"
    );
}

#[test]
fn a_change_of_treatment_is_told() {
    let old = WEB
        .replace("ports: [ 443 ]", "ports: [ 443 ], tls: { mode: passthrough, min: \"1.2\" }, reason: old");
    let difference = compare(&set(WEB), &set(&old), Date::from_days(20_000));
    let kinds: Vec<_> = difference.changes.iter().map(|change| change.kind).collect();
    assert_eq!(kinds, [Kind::CarriedDifferently]);
    assert!(difference.to_string().contains("(TLS 1.3 -> TLS 1.2 tolerated)"), "{difference}");
}

/// Text and number of pieces.
fn added(rule: &str) -> (String, usize) {
    let new = format!("{WEB}    - {{ name: new, {rule} }}\n");
    let difference = compare(&set(WEB), &set(&new), Date::from_days(20_000));
    (difference.to_string(), difference.changes.len())
}

#[test]
fn pieces_are_joined_to_what_a_reviewer_would_write() {
    let plain = "tls: { mode: none }, reason: r";
    for (rule, line) in [
        (
            format!("to: [ {{ cidrs: [ 0.0.0.0/0 ] }} ], ports: [ 22 ], protocol: tcp, {plain}"),
            "+ any tcp to 0.0.0.0/0 port 22 (exempt from TLS)",
        ),
        (
            format!(
                "to: [ {{ cidrs: [ \"::/0\", 10.0.0.0/8 ] }} ], ports: [ \"1-65535\" ], protocol: tcp, {plain}"
            ),
            "+ any tcp to 10.0.0.0/8, ::/0 any port (exempt from TLS)",
        ),
        (
            format!(
                "to: [ {{ cidrs: [ 10.0.0.0/8 ], except: [ 10.0.0.0/9 ] }} ], ports: [ 53 ], protocol: udp, {plain}"
            ),
            "+ udp to 10.128.0.0/9 port 53 (exempt from TLS)",
        ),
        (
            "to: [ { hosts: [ b.example.org, a.example.org ], private: true } ], ports: [ 443, 444, 8443 ]"
                .to_owned(),
            "+ tls to a.example.org, b.example.org ports 443-444, 8443 (private addresses too)",
        ),
        (
            format!(
                "to: [ {{ hosts: [ a.example.org ] }} ], ports: [ 80 ], protocol: http, {plain}, http: [ {{ methods: [ GET ], paths: [ \"/v1/**\" ] }} ]"
            ),
            "+ http to a.example.org port 80 for GET /v1/** (exempt from TLS; each request is judged)",
        ),
        (
            format!(
                "to: [ {{ hosts: [ {} ] }} ], ports: [ 443 ]",
                (0..20).map(|n| format!("h{n:02}.example.org")).collect::<Vec<_>>().join(", ")
            ),
            "+ tls to h00.example.org, h01.example.org, h02.example.org, h03.example.org, h04.example.org, h05.example.org and 14 more port 443",
        ),
    ] {
        let (text, pieces) = added(&rule);
        let reason = if rule.contains("reason: r") { " \"r\"" } else { "" };
        assert_eq!(
            text,
            format!("becomes reachable:\n  {line}   by p/new (p.yaml:7){reason}\n"),
            "{pieces} pieces"
        );
    }
    let (_, pieces) = added("to: [ { cidrs: [ 0.0.0.0/0 ] } ], ports: [ 22 ]");
    assert!(pieces > 20, "every piece is kept: {pieces}");
}

#[test]
fn a_prefix_of_which_more_is_missing_than_the_fixed_table_is_not_named_whole() {
    let net = "    - { name: net, to: [ { cidrs: [ 11.0.0.0/8 ] } ], ports: [ 443 ] }\n";
    let deny = "    - { name: out, action: deny, to: [ { cidrs: [ 11.128.0.0/9 ] } ], ports: [ 443 ] }\n";
    let text = shown(deny, &format!("{deny}{net}"));
    assert!(text.contains("tls to 11.0.0.0/9 port 443"), "{text}");
}

#[test]
fn what_a_rule_demands_of_requests_and_servers_is_a_change_of_carriage() {
    let api = |more: &str, tls: &str| {
        format!(
            "    - {{ name: api, to: [ {{ hosts: [ a.example.com ] }} ], ports: [ 80 ], protocol: http, tls: {{ mode: originate{tls} }}{more} }}\n"
        )
    };
    let (plain, limited) = (api("", ""), api(", limits: { requestsPerSecond: 9 }", ""));
    assert_eq!(
        shown(&plain, &limited),
        "carried differently:\n  ~ http to a.example.com port 80 (no other demands -> at most 9 requests a second)   by p/api (p.yaml:6)\n"
    );
    let slower = api(", limits: { requestsPerSecond: 9, burst: 2 }", "");
    assert!(shown(&limited, &slower).contains("at most 9 requests a second (2 at once)"));
    let (one, other) = (api("", ", roots: one"), api("", ", roots: other"));
    assert!(shown(&one, &other).contains("roots `one` -> server verified by the roots `other`"));
}

#[test]
fn another_certificate_for_clients_is_a_change_of_carriage() {
    let set = |label: &str| {
        let text = format!(
            "apiVersion: sidegate.dev/v1\nkind: Policy\nmetadata: {{ name: p }}\nspec:\n  ingress:\n    - {{ name: shop, from: [ {{ cidrs: [ 10.0.0.0/8 ] }} ], ports: [ 443 ], tls: {{ mode: terminate{label} }} }}\n"
        );
        let documents = parse(&Source::new("p.yaml", text.as_str())).expect("a policy");
        PolicySet::compile(&documents, &CompileOptions::default()).expect("rules that agree")
    };
    let (own, one) = (set(""), set(", certificate: one"));
    let text = compare(&own, &one, Date::from_days(20_000)).to_string();
    assert!(text.contains("no other demands -> clients are shown the certificate `one`"), "{text}");
}

#[test]
fn upgrades_are_told_by_themselves() {
    let api = |http: &str| {
        format!(
            "    - {{ name: api, to: [ {{ hosts: [ a.example.com ] }} ], ports: [ 80 ], protocol: http, tls: {{ mode: originate }}, http: [ {{ paths: [ \"/**\" ] }}{http} ] }}\n"
        )
    };
    let (plain, live) = (api(""), api(", { upgrade: websocket, paths: [ /live ] }"));
    assert_eq!(
        shown(&plain, &live),
        "becomes reachable:\n  + http to a.example.com port 80 for websocket /live (plaintext made TLS 1.3; each request is judged)   by p/api (p.yaml:6)\n"
    );
    let all = shown(WEB, &format!("{WEB}{live}"));
    assert!(all.contains("port 80, also for websocket /live (plaintext"), "{all}");
}

#[test]
fn a_declared_probe_becomes_reachable_for_anyone() {
    let old = set(WEB);
    let text = format!(
        "apiVersion: sidegate.dev/v1\nkind: Policy\nmetadata: {{ name: p }}\nspec:\n  probes: [ {{ port: 8080, path: /healthz }} ]\n  egress:\n{WEB}"
    );
    let documents = parse(&Source::new("p.yaml", text.as_str())).expect("a policy");
    let new = PolicySet::compile(&documents, &CompileOptions::default()).expect("rules that agree");
    let today = Date::from_days(20_000);
    let text = compare(&old, &new, today).to_string();
    assert!(
        text.starts_with("becomes reachable:\n  + http from anyone port 8080 for GET /healthz"),
        "{text}"
    );
    let back = compare(&new, &old, today).to_string();
    assert!(back.contains("- http from anyone port 8080 for GET /healthz"), "{back}");
}
