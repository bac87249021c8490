use sidegate_api::{
    CloseReason,
    access_record::{DnsFacts, TlsFacts},
};

use sidegate_policy::HostName;

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

const UNKNOWN: Known<'static> = Known { recall: &|_| Vec::new(), rule_for: &|_, _| None };

fn closing(when: SummaryWhen) -> Closing<'static> {
    Closing { when, dropped: 0, unrecorded: 0, advice: Advice::Rules, known: UNKNOWN }
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
    let known = Known { recall: &|_| vec![HostName::parse("db.example").unwrap()], ..UNKNOWN };
    let shown = summary.text(&Closing { known, ..closing(SummaryWhen::Denied) }).unwrap();
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

/// An opaque connection or request that named nobody, to 10.7.0.5.
fn unnamed(protocol: &str, port: u16) -> AccessRecord {
    let original_dst = Some(([10, 7, 0, 5], port).into());
    AccessRecord {
        host: None,
        protocol: protocol.into(),
        original_dst,
        ..connection("x", port, "would-deny")
    }
}

fn shop() -> Known<'static> {
    Known { recall: &|_| vec![HostName::parse("db.shop.test").unwrap()], ..UNKNOWN }
}

#[test]
fn what_was_reached_by_address_is_offered_by_address() {
    let records = [unnamed("tcp", 5432), unnamed("http", 8080)];
    let audit = Closing { advice: Advice::Audit("job"), known: shop(), ..closing(SummaryWhen::Always) };
    let shown = summary_of(&records).text(&audit).unwrap();
    assert!(
        shown.ends_with(
            "
    - name: db-shop-test-5432
      to: [ { hosts: [ db.shop.test ], private: true } ]
      ports: [ 5432 ]
      protocol: tcp
      tls: { mode: none }
      reason: \"say why this needs no TLS 1.3\"
    - name: 10-7-0-5-8080
      to: [ { cidrs: [ \"10.7.0.5/32\" ] } ]
      ports: [ 8080 ]
      protocol: http
      tls: { mode: none }
      reason: \"say why this needs no TLS 1.3\"
# 10.7.0.5:5432 showed no name; db.shop.test is a guess, for its answer led there
"
        ),
        "{shown}"
    );
}

#[test]
fn an_address_that_the_command_chose_makes_no_name_private() {
    let to_private =
        |host| AccessRecord { original_dst: Some(([10, 7, 0, 5], 443).into()), ..denied(host, 443) };
    let known = Closing { known: shop(), ..closing(SummaryWhen::Always) };
    let shown = |record: AccessRecord| summary_of(&[record]).text(&known).unwrap();
    let (led, chosen) = (shown(to_private("db.shop.test")), shown(to_private("evil.example")));
    assert!(led.contains("hosts: [ db.shop.test ], private: true"), "the control: {led}");
    assert!(!chosen.contains("private: true") && !chosen.contains("hosts:"), "{chosen}");
    assert!(
        chosen.contains("cidrs: [ \"10.7.0.5/32\" ]"),
        "what would be allowed is said as it is: {chosen}"
    );
    assert!(chosen.contains("# 10.7.0.5 is the command's own choice: no answer for evil.example led there"));

    let under_a_rule = |host| {
        let (policy, rule) = (Some("p".into()), Some("web".into()));
        AccessRecord { policy, rule, reason: "address-private".into(), ..to_private(host) }
    };
    assert!(shown(under_a_rule("db.shop.test")).contains("edit rule `web`"), "the control");
    let chosen = shown(under_a_rule("evil.example"));
    assert!(!chosen.contains("private: true }") && !chosen.contains("- name"), "{chosen}");
}

#[test]
fn what_refused_a_dial_is_offered_by_name_and_by_address() {
    let vain = |record| AccessRecord {
        bytes_sent: 0,
        close_reason: CloseReason::ConnectFailed,
        reason: "dial-refused".into(),
        ..record
    };
    let shown = audit_text(&[vain(connection("api.example", 443, "would-deny")), vain(unnamed("tcp", 8081))]);
    assert!(shown.contains("hosts: [ api.example ]"), "{shown}");
    assert!(shown.contains("cidrs: [ \"10.7.0.5/32\" ]") && shown.contains("ports: [ 8081 ]"), "{shown}");
}

#[test]
fn too_old_a_tls_is_told_with_the_edit_of_its_rule() {
    let edit = "
  if TLS 1.2 must do, edit rule `web` of policy `p` where it allows old.example
  (other hosts of that rule are better off in one of their own):

      tls: { mode: passthrough, min: \"1.2\" }
      reason: \"say why this needs no TLS 1.3\"
";
    let old = |reason: &str| AccessRecord { reason: reason.into(), ..denied("old.example", 443) };
    let mut server = old("tls-version-server");
    (server.policy, server.rule) = (Some("p".into()), Some("web".into()));
    let shown = text(&[server]);
    assert!(shown.ends_with(edit), "{shown}");
    // The client's refusal is nobody's rule: the one that would allow TLS 1.3 is asked for.
    let known = Known { rule_for: &|_, _| Some(("p".into(), "web".into())), ..UNKNOWN };
    let shown = summary_of(&[old("tls-version-client")])
        .text(&Closing { known, ..closing(SummaryWhen::Denied) })
        .unwrap();
    assert!(shown.ends_with(edit), "{shown}");
}

#[test]
fn a_run_advises_no_setting_that_it_lacks() {
    let mut many = question("n61.example", "A", "dns-budget");
    let budget = sidegate_policy::Reason::DnsBudget;
    many.explanation = Some(format!("{} {}", budget.meaning(), budget.fix()));
    assert!(!wording::why(&many).contains("raise"), "{}", wording::why(&many));
    let shown = text(&[many]);
    assert!(shown.contains("Name the hosts exactly") && !shown.contains("raise"), "{shown}");
    assert_eq!(shown.matches("Too many different names").count(), 1, "{shown}");
}
