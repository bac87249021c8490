//! `sidegate policy explain` and `test` from outside: what this build does, not only what the policy says.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

mod asked;

use asked::{Answered, policy};
use serde_json::Value;

const POLICY: &str = r#"
apiVersion: sidegate.dev/v1
kind: Policy
metadata: { name: p }
spec:
  egress:
    - { name: web, to: [ { hosts: [ api.example.com ] } ], ports: [ 443 ] }
    - { name: inspected, to: [ { hosts: [ seen.example.com ] } ], ports: [ 443 ], tls: { mode: inspect, roots: partner } }
    - { name: sealed, to: [ { hosts: [ old.example.com ] } ], ports: [ 80 ], protocol: tcp, tls: { mode: originate } }
    - { name: orders, to: [ { workloads: [ "spiffe://t/orders" ] } ], ports: [ 80 ] }
    - name: plain
      to: [ { hosts: [ plain.example.com ] } ]
      ports: [ 80 ]
      protocol: http
      tls: { mode: none }
      reason: no TLS there
    - name: database
      to: [ { hosts: [ db.internal.example ], private: true } ]
      ports: [ 5432 ]
      protocol: tcp
      tls: { mode: none }
      reason: it speaks first
  ingress:
    - { name: in, from: [ { cidrs: [ 10.0.0.0/8 ] } ], ports: [ 8080 ] }
"#;

fn explained(text: &str, arguments: &str) -> (Value, Answered) {
    let answered = policy("explain", &format!("- --json {arguments}"), text);
    (answered.json(), answered)
}

#[test]
fn what_this_build_carries_out_is_allowed_with_its_rule() {
    for (arguments, rule) in [
        ("--host seen.example.com --port 443", "inspected"),
        ("--host seen.example.com --port 443 --protocol tls", "inspected"),
        ("--host old.example.com --port 80 --protocol tcp", "sealed"),
        ("--to spiffe://t/orders --port 80", "orders"),
        ("--direction ingress --ip 10.0.0.1 --port 8080", "in"),
    ] {
        let (explanation, answered) = explained(POLICY, arguments);
        assert_eq!(answered.status, 0, "{arguments}");
        assert_eq!(explanation["verdict"], "allowed", "{arguments}");
        assert_eq!(explanation["rule"]["name"], rule, "{arguments}");
        assert_ne!(explanation["treatment"], Value::Null, "{arguments}");
    }
    let (explanation, answered) = explained(POLICY, "--host api.example.com --port 443");
    assert_eq!((answered.status, &explanation["verdict"]), (0, &Value::from("allowed")));
}

#[test]
fn cases_are_judged_as_this_build_carries_them_out() {
    let cases = tempfile::NamedTempFile::new().unwrap();
    let text = "- { host: seen.example.com, port: 443, expect: allowed, reason: rule-allows, rule: p/inspected }\n\
                - { host: api.example.com, port: 443, expect: allowed }\n\
                - { host: db.internal.example, port: 5432, protocol: tcp, expect: allowed }\n\
                - { host: seen.example.com, port: 443, expect: denied }\n";
    std::fs::write(cases.path(), text).unwrap();
    let answered = policy("test", &format!("- --json --cases {}", cases.path().display()), POLICY);
    let answer: Value = answered.json();
    assert_eq!(
        (answered.status, &answer["passed"], &answer["failed"]),
        (1, &3.into(), &1.into()),
        "{answer}"
    );
    assert_eq!(answer["cases"][3]["difference"], "expected denied, is allowed (rule-allows)");
}

#[test]
fn without_a_protocol_the_one_that_a_rule_allows_is_found_and_named() {
    for (arguments, verdict, assumed) in [
        ("--host db.internal.example --port 5432", "allowed", "`tcp` was assumed"),
        ("--host api.example.com --port 443", "allowed", "`tls` was assumed"),
        ("--host plain.example.com --port 80", "allowed", "`http` was assumed"),
        ("--host evil.example --port 443", "denied", "`tls` was assumed, and no other is allowed"),
    ] {
        let (explanation, _) = explained(POLICY, arguments);
        assert_eq!(explanation["verdict"], verdict, "{arguments}");
        let note = explanation["notes"][0].as_str().unwrap();
        assert!(note.contains(assumed), "{arguments}: {note}");
    }
    let (explanation, _) = explained(POLICY, "--host db.internal.example --port 5432 --protocol tcp");
    assert_eq!(explanation["notes"], Value::Array(vec![]), "nothing was assumed");
}

/// Audit lets every protocol pass: none of them is what the client speaks for that.
#[test]
fn in_audit_the_usual_protocol_is_assumed_and_offered() {
    let audit = POLICY.replace("spec:\n", "spec:\n  mode: audit\n  auditUntil: 2999-12-31\n");
    let (explanation, answered) = explained(&audit, "--host evil.example --port 443");
    assert_eq!((answered.status, &explanation["verdict"]), (1, &"would-deny".into()));
    assert!(explanation["notes"][0].as_str().unwrap().contains("`tls` was assumed"));
    assert!(!explanation["suggestion"].as_str().unwrap().contains("tcp"), "{explanation}");
    let (explanation, _) = explained(&audit, "--ip 8.8.8.8 --port 53 --protocol udp");
    assert_eq!(explanation["verdict"], "denied", "the kernel refuses datagrams, in audit too");
}

#[test]
fn a_datagram_by_name_is_told_what_to_name_instead() {
    let (explanation, _) = explained(POLICY, "--host api.example.com --port 443 --protocol udp");
    let suggestion = explanation["suggestion"].as_str().unwrap();
    assert!(suggestion.contains("`cidrs` and `protocol: udp`"), "{suggestion}");
}

#[test]
fn plaintext_that_may_name_a_denied_host_is_denied_as_by_the_proxy() {
    let open = "  egress:\n    - { name: any, to: [ { cidrs: [ 8.0.0.0/8 ] } ], ports: [ 80 ], protocol: tcp, tls: { mode: none }, reason: r }\n";
    let deny =
        "    - { name: never, action: deny, to: [ { hosts: [ evil.example.com ] } ], ports: [ 80 ] }\n";
    let asked = "--ip 8.8.8.8 --port 80 --protocol http";
    let (explanation, _) = explained(&POLICY.replace("  egress:\n", open), asked);
    assert_eq!(explanation["verdict"], "allowed", "without the denial");
    let (explanation, answered) = explained(&POLICY.replace("  egress:\n", &format!("{open}{deny}")), asked);
    assert_eq!((answered.status, &explanation["reason"]), (1, &"host-hidden".into()));
    assert_eq!(explanation["rule"]["name"], "never");
}

/// Each suggestion is added to the policy that it was made for; then the same question is asked again.
#[test]
fn a_suggested_rule_loads_and_allows_what_was_asked() {
    for arguments in [
        "--host pypi.org --port 443",
        "--host pypi.org --port 80 --protocol http",
        "--host pypi.org --port 80",
        "--host pypi.org --port 80 --method GET --path /simple",
        "--host db.internal.example --port 5433 --protocol tcp",
        "--host db.internal.example --port 6000",
        "--ip 10.0.0.7 --port 22 --protocol tcp",
        "--ip 8.8.8.8 --port 53 --protocol udp",
    ] {
        let (explanation, answered) = explained(POLICY, arguments);
        assert_eq!(answered.status, 1, "{arguments}");
        let rule = explanation["suggestion"].as_str().unwrap();
        assert!(!rule.contains("db.internal") || rule.contains("private: true"), "{rule}");
        let indented: String = rule.lines().map(|line| format!("    {line}\n")).collect();
        let mended = POLICY.replace("  egress:\n", &format!("  egress:\n{indented}"));
        let (explanation, answered) = explained(&mended, arguments);
        assert_eq!((answered.status, &explanation["verdict"]), (0, &"allowed".into()), "{rule}{explanation}");
    }
}

#[test]
fn where_a_second_rule_would_be_refused_the_first_is_named_instead() {
    let (explanation, _) = explained(POLICY, "--host api.example.com --ip 10.0.0.3 --port 443");
    let suggestion = explanation["suggestion"].as_str().unwrap();
    assert!(suggestion.starts_with('#') && suggestion.contains("`private: true` beside it in rule p/web"));
}

#[test]
fn an_answer_on_ingress_says_where_the_rule_binds() {
    let arguments = "--direction ingress --ip 10.0.0.1 --port 8080";
    let (explanation, _) = explained(POLICY, arguments);
    let notes = explanation["notes"].to_string();
    assert!(notes.contains("ingress rules bind where a sidecar captures"), "{notes}");
    let shown = policy("explain", &format!("- {arguments}"), POLICY);
    assert!(shown.stdout.contains("ingress rules bind where a sidecar captures"));
    let (explanation, _) = explained(POLICY, "--host api.example.com --port 443");
    assert!(!explanation["notes"].to_string().contains("enforced"), "egress is");
}

#[test]
fn an_invalid_policy_gives_its_errors_as_json_and_1() {
    let broken = POLICY.replace("ports: [ 443 ]", "ports: [ 0 ]");
    let file = |text: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    };
    let (old, cases) = (file(POLICY), file("- { host: a.example, port: 443, expect: denied }\n"));
    let (old, cases) = (old.path().display(), cases.path().display());
    for (command, arguments) in [
        ("check", "- --json".to_owned()),
        ("explain", "- --json --host a.example --port 443".to_owned()),
        ("test", format!("- --json --cases {cases}")),
        ("diff", format!("{old} - --json")),
    ] {
        let answered = policy(command, &arguments, &broken);
        assert_eq!(answered.status, 1, "{command}");
        let answer: Value = answered.json();
        assert_eq!(answer["valid"], false, "{command}");
        let codes: Vec<_> =
            answer["diagnostics"].as_array().unwrap().iter().map(|one| &one["code"]).collect();
        assert_eq!(codes, ["port", "port"], "{command}");
        assert_eq!(answered.stderr, "", "{command}");
        let answered = policy(command, &arguments.replace(" --json", ""), &broken);
        assert_eq!(answered.status, 1, "{command}");
        assert_eq!((&*answered.stdout, answered.stderr.contains("65535")), ("", true), "{command}");
    }
}

#[test]
fn files_that_can_not_be_read_give_2_and_say_what_to_name() {
    let folder = tempfile::tempdir().unwrap();
    let shown = folder.path().display().to_string();
    for (path, expected) in [(shown.clone(), "*.yaml"), (format!("{shown}/absent.yaml"), "no such file")] {
        for (command, more) in [("check", ""), ("explain", "--host a.example --port 443"), ("diff", "-")] {
            let answered = policy(command, &format!("{path} {more}"), POLICY);
            assert_eq!(answered.status, 2, "{command}");
            assert!(answered.stderr.contains(expected), "{command}: {}", answered.stderr);
            let answered = policy(command, &format!("{path} {more} --json"), POLICY);
            let answer: Value = answered.json();
            let error = answer["unreadable"][0]["error"].as_str().unwrap();
            assert!(error.contains(expected), "{command}: {answer}");
        }
    }
}

#[test]
fn a_url_or_a_port_in_place_of_a_host_is_answered_with_what_to_write() {
    for (given, expected) in [
        ("pypi.org:80", "`--host pypi.org --port 80`"),
        ("https://pypi.org/x", "`--host pypi.org --port 443`"),
    ] {
        let answered = policy("explain", &format!("- --host {given} --port 1"), POLICY);
        assert_eq!((answered.status, answered.stderr.contains(expected)), (2, true), "{}", answered.stderr);
    }
}
