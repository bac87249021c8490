use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::HostName;

fn source(text: &str) -> Source {
    Source::new("p.yaml", text)
}

fn codes(text: &str) -> Vec<&'static str> {
    parse(&source(text)).err().unwrap_or_default().iter().map(|diagnostic| diagnostic.code).collect()
}

fn with_rule(body: &str) -> String {
    format!(
        "apiVersion: sidegate.dev/v1\nkind: Policy\nmetadata: {{ name: p }}\nspec:\n  egress:\n    - {{ name: one, {body} }}\n"
    )
}

#[test]
fn defaults_are_strict() {
    let text = with_rule("to: [ { hosts: [ API.example.com ] } ], ports: [ 443 ]");
    let documents = parse(&source(&text)).unwrap();
    let rule = &documents[0].egress[0];
    assert_eq!(rule.action, Action::Allow);
    assert_eq!(rule.protocol, Protocol::Tls);
    assert_eq!(rule.tls, TlsMode::Passthrough { min_tls12: false });
    let api = HostName::parse("api.example.com").unwrap();
    assert_eq!(
        rule.ends[0].value,
        Destination::Hosts { hosts: vec![HostPattern::Exact(api)], private: false }
    );
    assert_eq!(&text[rule.name.span.clone()], "one");
    assert!(
        text[rule.span.clone()].starts_with("{ name: one") && text[rule.span.clone()].ends_with("[ 443 ] }")
    );
}

#[test]
fn workloads_default_to_mesh_whatever_the_protocol() {
    for protocol in ["tls", "http", "tcp"] {
        let text = with_rule(&format!(
            "to: [ {{ workloads: [ \"spiffe://t/a\" ] }} ], ports: [ 80 ], protocol: {protocol}"
        ));
        assert_eq!(parse(&source(&text)).unwrap()[0].egress[0].tls, TlsMode::Mesh, "{protocol}");
    }
}

#[test]
fn the_span_of_a_block_rule_ends_with_its_last_value() {
    let text = "apiVersion: sidegate.dev/v1\nkind: Policy\nmetadata: { name: p }\nspec:\n  egress:\n    - name: one\n      to: [ { hosts: [ a.test ] } ]\n      ports: [ 443 ]\n\n      # a comment\n\n  ingress: []\n";
    let fixed = text.replace("  ingress: []\n", "");
    let documents = parse(&source(&fixed)).unwrap();
    let span = documents[0].egress[0].span.clone();
    assert!(fixed[span.clone()].starts_with("name: one") && fixed[span].ends_with("[ 443 ]"));
}

#[test]
fn deny_rules_may_cover_public_suffixes_and_allow_rules_may_not() {
    let body = "to: [ { hosts: [ \"**.zip\" ] } ], ports: [ \"1-65535\" ]";
    assert_eq!(codes(&with_rule(&format!("action: deny, {body}"))), Vec::<&str>::new());
    assert_eq!(codes(&with_rule(body)), ["public-suffix"]);
}

#[test]
fn the_number_of_diagnostics_is_bounded() {
    let text = format!("{}\n", (0..5000).map(|i| format!("k{i}: 1\n")).collect::<String>());
    let diagnostics = parse(&source(&text)).unwrap_err();
    assert_eq!(diagnostics.len(), 201);
    assert_eq!(diagnostics.last().map(|diagnostic| diagnostic.code), Some("too-many-errors"));
}

/// Shapes that make careless parsers quadratic, near the largest size. Measured: under 2 s each unoptimised.
#[test]
fn hostile_shapes_take_linear_time() {
    let size = MAX_SIZE - 200;
    let head = "apiVersion: sidegate.dev/v1\nkind: Policy\nmetadata: { name: p }\nspec:\n";
    let fill = |unit: &str| unit.repeat((size - head.len()) / unit.len());
    let keys: String = (0..size / 12).map(|i| format!("k{i:07}: v\n")).collect();
    let shapes = [
        fill("["),
        fill("{a: "),
        fill("- "),
        fill("? "),
        fill("---\n"),
        fill("&a "),
        fill("!a "),
        keys,
        format!("{head}  egress: [{}]", fill("{},")),
        format!("{head}  egress:\n{}", fill("  - {}\n")),
        format!("{head}  appliesTo: [{}]", fill("é,")),
        format!("{head}  mode: \"{}\"", fill("\\n")),
        with_rule(&format!("to: [ {{ cidrs: [ {} ] }} ]", "10.0.0.1/8,".repeat(size / 12))),
    ];
    for shape in shapes {
        let start = Instant::now();
        assert!(parse(&source(&shape)).is_err());
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}: {:.60}", start.elapsed(), shape);
    }
}

#[test]
fn a_source_over_the_limit_is_refused_unread() {
    assert_eq!(codes(&" ".repeat(MAX_SIZE + 1)), ["too-large"]);
}

#[test]
fn a_section_says_what_a_near_field_is_called() {
    let file = source("policy: p.yaml\n");
    let refused = read_sections(&file, "ProxyConfig", &["policies"], |section| {
        section.require("policies", "ProxyConfig", "name the files");
        Some(())
    });
    let errors = refused.unwrap_err();
    assert_eq!(errors.len(), 1, "not missing as well: {errors:?}");
    assert!(errors[0].fix.contains("`policies: [ FILE ]`"), "{}", errors[0]);
}

fn scraps() -> impl Strategy<Value = String> {
    let scrap = prop_oneof![
        Just("apiVersion: sidegate.dev/v1\n".to_owned()),
        Just("kind: Policy\n".to_owned()),
        Just("metadata: { name: p }\n".to_owned()),
        Just("spec:\n  egress:\n    - name: a\n".to_owned()),
        "[ ]{0,6}(- )?(to|from|hosts|cidrs|ports|tls|http|mode|private|grants): ?",
        "[\\[\\]{},:&*!|>'\"%@`#?<=~\\-]{1,4}",
        "\"\\*?\\*\\.[a-z.]{0,9}\"",
        "(10\\.0\\.0\\.0/8|443|\"8000-8100\"|spiffe://a/b|2030-12-31|yes|null)",
        "[ \\n\\t\\r]{1,3}",
        ".{0,6}",
    ];
    prop::collection::vec(scrap, 0..30).prop_map(|scraps| scraps.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_is_refused_or_parsed_without_panic_and_places_are_true(text in scraps()) {
        let source = source(&text);
        for diagnostic in parse(&source).err().unwrap_or_default() {
            prop_assert!(text.get(diagnostic.span.clone()).is_some(), "{diagnostic} {:?}", diagnostic.span);
            prop_assert_eq!((diagnostic.line, diagnostic.column), source.place(diagnostic.span.start));
        }
    }

    #[test]
    fn documents_round_trip(document in generate::document()) {
        let yaml = document.to_yaml();
        let again = parse(&source(&yaml)).map_err(|errors| TestCaseError::fail(format!("{errors:#?}\n{yaml}")))?;
        prop_assert_eq!(again.len(), 1);
        prop_assert_eq!(again[0].without_places(), document.without_places(), "{}", yaml);
    }
}

mod generate;
