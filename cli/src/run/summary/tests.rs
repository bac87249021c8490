use sidegate_api::{
    CloseReason,
    access_record::{DnsFacts, TlsFacts},
};

use super::*;
use crate::run::wording::tests::denied;

fn question(host: &str, kind: &str, reason: &str) -> AccessRecord {
    let dns = DnsFacts { question: kind.into(), response: "NXDOMAIN".into(), answers: 0 };
    AccessRecord {
        dns: Some(dns),
        protocol: "dns".into(),
        reason: reason.into(),
        original_dst: None,
        ..denied(host, 53)
    }
}

fn connection(host: &str, port: u16, verdict: &str) -> AccessRecord {
    AccessRecord {
        verdict: verdict.into(),
        original_dst: Some(([8, 8, 8, 8], port).into()),
        bytes_sent: 10,
        close_reason: CloseReason::Done,
        ..denied(host, port)
    }
}

fn summary_of(records: &[AccessRecord]) -> Summary {
    let mut summary = Summary::default();
    records.iter().for_each(|record| summary.record(record));
    summary
}

fn closing(when: SummaryWhen) -> Closing<'static> {
    Closing { when, dropped: 0, unrecorded: 0, advice: Advice::Rules, recall: &|_| None }
}

fn text(records: &[AccessRecord]) -> String {
    summary_of(records).text(&closing(SummaryWhen::Always)).unwrap()
}

fn audit_text(records: &[AccessRecord]) -> String {
    let audit = Closing { advice: Advice::Audit("make"), ..closing(SummaryWhen::Always) };
    summary_of(records).text(&audit).unwrap()
}

#[test]
fn nothing_is_said_when_nothing_was_denied_unless_asked() {
    let summary = summary_of(&[
        connection("good.example", 443, "allowed"),
        question("good.example.corp.example", "A", "dns-search"),
    ]);
    assert_eq!(summary.text(&closing(SummaryWhen::Denied)), None);
    assert_eq!(
        summary.text(&closing(SummaryWhen::Always)).unwrap(),
        "\nsidegate: 1 connection allowed\n  allowed    good.example:443 (tls, once)\n"
    );
    let dropped = Closing { dropped: 3, ..closing(SummaryWhen::Denied) };
    assert!(summary.text(&dropped).unwrap().contains("3 records were dropped"));
}

#[test]
fn denials_are_told_by_reason_and_destination_with_the_rules_to_add() {
    let mut near = denied("api.example", 8443);
    near.original_dst = Some(([8, 8, 8, 8], 8443).into());
    near.explanation = Some(
        "No rule allows it. Nearest rule: `web` of policy `p` (p.yaml:5), but it names another port. \
         Add an allow rule for this destination."
            .into(),
    );
    let shown = text(&[
        question("pypi.org", "A", "name-not-allowed"),
        question("pypi.org", "AAAA", "name-not-allowed"),
        question("pypi.org", "A", "name-not-allowed"),
        question("pypi.org", "AAAA", "name-not-allowed"),
        near,
    ]);
    assert_eq!(
        shown,
        "
sidegate: 0 connections allowed; 1 connection and 4 DNS questions denied

  name-not-allowed: No rule could allow this name, so it is not asked upstream. Add a rule with this host.
  denied     pypi.org (A, AAAA, asked 4 times)

  no-rule: No rule allows it. Add an allow rule for this destination.
  denied     api.example:8443 (tls, once)
             Nearest rule: `web` of policy `p` (p.yaml:5), but it names another port.

  to allow what is intended, add to the policy under `spec.egress`:

    # port 443 is a guess where a name was only asked for
    - name: api-example-8443
      to: [ { hosts: [ api.example ] } ]
      ports: [ 8443 ]
    - name: pypi-org-443
      to: [ { hosts: [ pypi.org ] } ]
      ports: [ 443 ]
"
    );
}

#[test]
fn without_a_policy_the_rules_come_as_a_first_one() {
    let first = Closing { advice: Advice::FirstPolicy("npm"), ..closing(SummaryWhen::Denied) };
    let shown = summary_of(&[denied("pypi.org", 443)]).text(&first).unwrap();
    let (_, policy) = shown.split_once("sidegate.yaml:\n\n").unwrap();
    let source = sidegate_policy::Source::new("sidegate.yaml", policy);
    let documents = sidegate_policy::document::parse(&source).unwrap();
    assert_eq!((documents[0].name.value.as_str(), documents[0].egress.len()), ("npm", 1));
}

#[test]
fn a_private_answer_is_told_by_the_word_that_its_rule_lacks() {
    let mut private = question("db.example", "A", "address-private");
    (private.rule, private.policy) = (Some("database".into()), Some("p".into()));
    let meaning = sidegate_policy::Reason::AddressPrivate.meaning();
    private.explanation = Some(format!("1 of 1 addresses withheld, such as 10.1.2.3: {meaning}"));
    let shown = text(&[private]);
    assert!(
        shown.ends_with(
            "
  if a private address is intended, edit rule `database` of policy `p` where it allows db.example:

      to: [ { hosts: [ db.example ], private: true } ]
"
        ),
        "{shown}"
    );
    assert!(!shown.contains("- name"), "a second rule would disagree with the first: {shown}");
    assert!(shown.contains("withheld, such as 10.1.2.3\n"), "no colon that leads nowhere: {shown}");
    assert!(!shown.contains("spec.egress"), "there is nothing to add: {shown}");
}

#[test]
fn packets_without_a_record_are_counted() {
    let flood = Closing { unrecorded: 1_004_210, ..closing(SummaryWhen::Denied) };
    let shown = Summary::default().text(&flood).unwrap();
    assert!(
        shown.ends_with("  and 1,004,210 more refused packets, counted, not recorded one by one\n"),
        "{shown}"
    );
}

#[test]
fn no_rule_is_offered_where_none_helps() {
    let old = AccessRecord { reason: "tls-version-server".into(), ..denied("old.example", 443) };
    let hostile = AccessRecord { original_dst: None, ..denied("x } ]\n- y", 443) };
    let reserved =
        AccessRecord { original_dst: Some(([240, 0, 0, 1], 443).into()), ..denied("r.example", 443) };
    let shown = text(&[old, hostile, reserved]);
    assert!(!shown.contains("- name") && !shown.contains("\n- y"), "{shown}");
}

#[test]
fn in_audit_the_summary_is_a_policy_for_all_that_passed() {
    let mut old = connection("old.example", 443, "would-deny");
    old.tls = Some(TlsFacts { version: Some("1.2".into()), peer: None });
    let mut silent = connection("x", 443, "would-deny");
    (silent.host, silent.bytes_sent, silent.protocol) = (None, 0, "tcp".into());
    let mut metadata = connection("x", 80, "denied");
    (metadata.host, metadata.reason) = (None, "address-metadata".into());
    let shown = audit_text(&[
        question("api.example", "A", "name-not-allowed"),
        AccessRecord { verdict: "would-deny".into(), ..question("only.example", "A", "name-not-allowed") },
        connection("api.example", 443, "would-deny"),
        connection("allowed.example", 443, "allowed"),
        old,
        silent,
        metadata,
    ]);
    let (_, document) = shown.split_once("as a policy:\n\n").unwrap();
    assert_eq!(
        document,
        "apiVersion: sidegate.dev/v1
kind: Policy
metadata:
  name: make
  description: \"what it reached in audit mode\"
spec:
  egress:
    - name: allowed-example-443
      to: [ { hosts: [ allowed.example ] } ]
      ports: [ 443 ]
    - name: api-example-443
      to: [ { hosts: [ api.example ] } ]
      ports: [ 443 ]
    - name: old-example-443
      to: [ { hosts: [ old.example ] } ]
      ports: [ 443 ]
      tls: { mode: passthrough, min: \"1.2\" }
      reason: \"say why this needs no TLS 1.3\"
# asked for, but never connected to: only.example
"
    );
}

#[test]
fn a_server_first_protocol_is_offered_by_the_name_that_led_to_it() {
    let mut opaque = connection("x", 5432, "denied");
    (opaque.host, opaque.protocol) = (None, "tcp".into());
    let summary = summary_of(&[opaque]);
    let named = |_| HostName::parse("db.example").ok();
    let shown = summary.text(&Closing { recall: &named, ..closing(SummaryWhen::Denied) }).unwrap();
    assert!(shown.contains("hosts: [ db.example ]") && shown.contains("protocol: tcp"), "{shown}");
    let shown = summary.text(&closing(SummaryWhen::Denied)).unwrap();
    assert!(shown.contains("cidrs: [ \"8.8.8.8/32\" ]") && shown.contains("reason: "), "{shown}");
}

#[test]
fn endless_destinations_are_counted_not_kept() {
    let mut summary = Summary::default();
    for number in 1..=5000u16 {
        let record =
            AccessRecord { original_dst: Some(([8, 8, 8, 8], number).into()), ..denied("x", number) };
        summary.record(&AccessRecord { host: Some(format!("n{number}.example")), ..record });
    }
    let text = summary.text(&closing(SummaryWhen::Denied)).unwrap();
    assert!(text.contains("5000 connections denied") && text.contains("and 4980 times elsewhere"), "{text}");
    assert_eq!(text.matches("- name:").count(), 40, "{text}");
    assert_eq!(summary.counts.lock().unwrap().refused.by_key.len(), MOST_GROUPS);
}
