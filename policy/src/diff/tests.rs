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
        "becomes reachable:\n  + tls to api.example.org port 443, 8000-8100   by p/api (p.yaml:7)\n"
    );
    assert_eq!(
        shown(&more, WEB),
        "no longer reachable:\n  - tls to api.example.org port 443, 8000-8100   was allowed by p/api (p.yaml:7)\n"
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
    assert!(difference.to_string().contains("1.3 or newer"), "{difference}");
}
