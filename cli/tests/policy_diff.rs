//! `sidegate policy diff` from outside: lines that a reviewer reads, every piece in JSON, and the exit status.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

mod asked;

use asked::{Answered, policy};

const HEAD: &str = "apiVersion: sidegate.dev/v1\nkind: Policy\nmetadata: { name: p }\nspec:\n  egress:\n";
const WEB: &str = "    - { name: web, to: [ { hosts: [ api.example.com ] } ], ports: [ 443 ] }\n";

fn diff(old: &str, new: &str, arguments: &str) -> Answered {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{HEAD}{old}")).unwrap();
    policy("diff", &format!("{} - {arguments}", file.path().display()), &format!("{HEAD}{new}"))
}

#[test]
fn the_status_says_whether_they_differ() {
    assert_eq!(diff(WEB, WEB, "").status, 0);
    let renamed = WEB.replace("name: web", "name: other");
    assert_eq!(diff(WEB, &renamed, "").stdout, "The two say the same.\n");
    assert_eq!(diff(WEB, &WEB.replace("443", "444"), "").status, 1);
    let json = diff(WEB, WEB, "--json").json();
    assert_eq!(json, serde_json::json!({ "summary": [], "changes": [], "notes": [] }));
}

#[test]
fn one_line_stands_for_what_one_rule_opens_and_json_has_every_piece() {
    let any = "    - { name: any, to: [ { cidrs: [ 0.0.0.0/0, \"::/0\" ] } ], ports: [ 22 ], protocol: tcp, tls: { mode: none }, reason: r }\n";
    let (old, new) = (WEB, format!("{WEB}{any}"));
    let line = "+ any tcp to 0.0.0.0/0, ::/0 port 22 (exempt from TLS)   by p/any (<stdin>:7) \"r\"";
    let answered = diff(old, &new, "");
    assert_eq!((answered.status, &*answered.stdout), (1, &*format!("becomes reachable:\n  {line}\n")));
    let json = diff(old, &new, "--json").json();
    assert_eq!(json["summary"], serde_json::json!([line]));
    let changes = json["changes"].as_array().unwrap();
    let ends: Vec<_> =
        changes.iter().filter(|change| change["protocol"] == "tls").map(|change| &change["end"]).collect();
    assert!(ends.len() > 20, "{ends:?}");
    assert!(!ends.contains(&&"169.254.169.254".into()), "the fixed table stays closed");
    assert!(
        changes
            .iter()
            .all(|change| change["kind"] == "becomes-reachable" && change["new"]["rule"]["name"] == "any")
    );
}

#[test]
fn a_change_of_carriage_says_what_changes_and_nothing_else() {
    let weaker = WEB
        .replace("ports: [ 443 ]", "ports: [ 443 ], tls: { mode: passthrough, min: \"1.2\" }, reason: old");
    let answered = diff(WEB, &weaker, "");
    assert_eq!(
        answered.stdout,
        "carried differently:\n  ~ tls to api.example.com port 443 (TLS 1.3 -> TLS 1.2 tolerated)   by p/web (<stdin>:6) \"old\"\n"
    );
}

#[test]
fn demands_are_told_and_rules_that_bind_in_sidecars_alone_are_noted() {
    let inspected = WEB.replace("ports: [ 443 ]", "ports: [ 443 ], tls: { mode: inspect, roots: partner }");
    let answered = diff(WEB, &inspected, "");
    assert!(
        answered
            .stdout
            .contains("(TLS 1.3 -> TLS inspected; connections are judged -> each request is judged; no other demands -> server verified by the roots `partner`)"),
        "{}",
        answered.stdout
    );
    assert!(!answered.stdout.contains("note: "), "{}", answered.stdout);
    let inbound = "  ingress:\n    - { name: in, from: [ { cidrs: [ 10.0.0.0/8 ] } ], ports: [ 443 ] }\n";
    let entered = WEB.to_owned() + inbound;
    let answered = diff(WEB, &entered, "");
    assert!(answered.stdout.contains("note: <stdin>:"), "{}", answered.stdout);
    assert_eq!(diff(WEB, &entered, "--json").json()["notes"][0]["code"], "ingress-unenforced");
}
