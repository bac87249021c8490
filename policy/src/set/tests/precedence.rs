//! The order: fixed table, denies, most specific allow, default deny.

use super::build::*;
use crate::{
    CompileOptions, HostEvidence, Observed, Peek, PolicySet, Predicate, Reason, Request,
    Verdict::{Allowed, Denied, WouldDeny},
    decision::{Dial, TlsMode},
    deny_table::Grant,
    document::{Destination, Protocol, Rule},
};

#[test]
fn nothing_passes_without_a_policy() {
    let host = name("ok.example");
    let empty = PolicySet::empty(crate::Generation(7));
    assert_eq!(verdict(&empty, &sni(&host)), (Denied, Reason::NoPolicy, None));
    assert_eq!(verdict(&set(&[]), &sni(&host)), (Denied, Reason::NoPolicy, None));
    assert_eq!(verdict(&set_of(vec![]), &sni(&host)), (Denied, Reason::NoRule, None));
}

#[test]
fn a_name_is_allowed_and_dialled_by_name() {
    let set = set_of(vec![rule("ok", vec![hosts(&["ok.example.test"])])]);
    let (host, other) = (name("ok.example.test"), name("no.example.test"));
    let decision = set.decide(&sni(&host));
    assert_eq!(said(&set, &decision), (Allowed, Reason::RuleAllows, Some("ok")));
    assert_eq!(decision.treatment.map(|treatment| treatment.dial), Some(Dial::Name));

    let decision = set.decide(&sni(&other));
    assert_eq!(said(&set, &decision), (Denied, Reason::NoRule, None));
    let near = decision.nearest.map(|near| (&*set.rule(near.rule).name, near.failed));
    assert_eq!(near, Some(("ok", Predicate::Destination)));

    let decision = set.decide(&Request { port: 8443, ..sni(&host) });
    assert_eq!(decision.nearest.map(|near| near.failed), Some(Predicate::Port));
}

#[test]
fn wildcards_keep_their_bounds() {
    let set =
        set_of(vec![rule("one", vec![hosts(&["*.ok.test"])]), rule("any", vec![hosts(&["**.deep.test"])])]);
    for (host, allowed_by) in [
        ("a.ok.test", Some("one")),
        ("ok.test", None),
        ("a.b.ok.test", None),
        ("evilok.test", None),
        ("a.evilok.test", None),
        ("a.deep.test", Some("any")),
        ("a.b.c.deep.test", Some("any")),
        ("deep.test", None),
        ("notdeep.test", None),
        ("test", None),
    ] {
        let host = name(host);
        let (verdict, _, rule) = verdict(&set, &sni(&host));
        assert_eq!((verdict == Allowed).then_some(rule).flatten(), allowed_by, "{host}");
    }
}

#[test]
fn the_most_specific_allow_decides() {
    let set = set_of(vec![
        Rule { tls: TlsMode::Inspect, ..rule("exact", vec![hosts(&["a.b.test"])]) },
        Rule { tls: TlsMode::Passthrough { min_tls12: true }, ..rule("one", vec![hosts(&["*.b.test"])]) },
        rule("any", vec![hosts(&["**.b.test"])]),
        rule("wide", vec![cidrs(&["0.0.0.0/0"], &[])]),
        Rule { tls: TlsMode::None, ..rule("narrow", vec![cidrs(&["8.8.0.0/16"], &[])]) },
    ]);
    for (host, address, by) in [
        ("a.b.test", "8.8.8.8", "exact"),
        ("c.b.test", "8.8.8.8", "one"),
        ("a.c.b.test", "8.8.8.8", "any"),
        ("other.test", "8.8.8.8", "narrow"),
        ("other.test", "9.9.9.9", "wide"),
    ] {
        let host = name(host);
        let request = Request { address: Some(ip(address)), ..sni(&host) };
        assert_eq!(verdict(&set, &request), (Allowed, Reason::RuleAllows, Some(by)), "{host} at {address}");
    }
}

#[test]
fn a_deny_beats_every_allow() {
    let set = set_of(vec![
        rule("name", vec![hosts(&["**.example.test"])]),
        tcp(rule("net", vec![cidrs(&["8.0.0.0/8"], &[])]), 1..=65535),
        deny("no-host", vec![hosts(&["bad.example.test"])]),
        Rule { ports: vec![1..=65535], ..deny("no-net", vec![cidrs(&["8.9.0.0/16"], &["8.9.9.0/24"])]) },
    ]);
    let (bad, good) = (name("bad.example.test"), name("good.example.test"));
    let by_no_host = (Denied, Reason::RuleDenies, Some("no-host"));
    assert_eq!(verdict(&set, &sni(&bad)), by_no_host, "over both allows");
    assert_eq!(verdict(&set, &sni(&good)), (Allowed, Reason::RuleAllows, Some("name")));
    let at = |address| Request { address: Some(ip(address)), ..sni(&good) };
    assert_eq!(verdict(&set, &at("8.9.1.1")), (Denied, Reason::RuleDenies, Some("no-net")));
    assert_eq!(verdict(&set, &at("8.9.9.1")).0, Allowed);
    assert_eq!(verdict(&set, &to("8.9.1.1", 5432)), (Denied, Reason::RuleDenies, Some("no-net")));
    assert_eq!(verdict(&set, &to("8.10.1.1", 5432)).0, Allowed);

    let decision = set.decide(&sni(&good));
    let refused = set.judge_answer(&sni(&good), &decision, ip("8.9.1.1")).expect_err("a denied answer");
    assert_eq!(
        (refused.reason, refused.rule.map(|rule| &*set.rule(rule).name)),
        (Reason::RuleDenies, Some("no-net"))
    );
    assert_eq!(set.judge_answer(&sni(&good), &decision, ip("8.9.9.1")), Ok(()));
    let private = set.judge_answer(&sni(&good), &decision, ip("10.0.0.1")).expect_err("a private answer");
    assert_eq!(private.reason, Reason::AddressPrivate);
}

#[test]
fn the_table_stands_before_rules_and_grants_open_triples() {
    let everything = tcp(rule("all", vec![cidrs(&["0.0.0.0/0", "::/0"], &[])]), 1..=65535);
    let grant = Rule { ports: vec![], ..rule("imds", vec![Destination::Grants(vec![Grant::Ec2Imds])]) };
    let closed = set_of(vec![everything.clone()]);
    let open = set_of(vec![everything, grant]);
    let imds = Request { observed: Observed::Http, ..to("169.254.169.254", 80) };
    assert_eq!(verdict(&closed, &imds), (Denied, Reason::AddressMetadata, None));
    assert_eq!(verdict(&open, &imds), (Allowed, Reason::GrantAllows, Some("imds")));
    let opaque = verdict(&open, &to("169.254.169.254", 80));
    assert_eq!(opaque, (Denied, Reason::ProtocolMismatch, None), "each request there is judged");
    assert_eq!(verdict(&open, &to("169.254.169.254", 443)).1, Reason::AddressMetadata);
    assert_eq!(verdict(&open, &to("169.254.170.2", 80)).1, Reason::AddressMetadata);
    assert_eq!(verdict(&open, &to("64:ff9b::a9fe:a9fe", 80)).1, Reason::AddressMetadata);
    assert_eq!(verdict(&open, &Request { observed: Observed::Udp, ..imds }).1, Reason::AddressMetadata);
    assert_eq!(verdict(&open, &to("127.0.0.1", 80)).1, Reason::AddressLoopback);
    assert_eq!(verdict(&open, &to("10.0.0.1", 80)).0, Allowed);
}

#[test]
fn an_allowed_name_does_not_open_a_private_original_destination() {
    let host = name("ok.example.test");
    let at = |address| Request { address: Some(ip(address)), ..sni(&host) };
    let set = set_of(vec![rule("ok", vec![hosts(&["ok.example.test"])])]);
    assert_eq!(verdict(&set, &at("10.0.0.1")), (Denied, Reason::AddressPrivate, None));
    let set = set_of(vec![rule("ok", vec![private_hosts(&["ok.example.test"])])]);
    assert_eq!(verdict(&set, &at("10.0.0.1")).0, Allowed);
    assert_eq!(verdict(&set, &at("169.254.169.254")).1, Reason::AddressMetadata);
}

#[test]
fn protocols_and_tls_demands_are_named() {
    let set = set_of(vec![
        rule("tls", vec![hosts(&["ok.example.test"]), cidrs(&["9.9.9.9/32"], &[])]),
        tcp(rule("db", vec![hosts(&["db.example.test"])]), 5432..=5432),
    ]);
    let (ok, db) = (name("ok.example.test"), name("db.example.test"));
    let tls = |offers_tls13, ech| Request { observed: Observed::Tls { offers_tls13, ech }, ..sni(&ok) };
    assert_eq!(verdict(&set, &tls(false, false)).1, Reason::TlsVersionClient);
    assert_eq!(verdict(&set, &tls(true, true)).1, Reason::TlsEch);
    assert_eq!(verdict(&set, &Request { host: None, ..tls(true, false) }).1, Reason::HostMissing);
    assert_eq!(verdict(&set, &to("9.9.9.9", 443)).1, Reason::TlsRequired);
    assert_eq!(verdict(&set, &Request { observed: TLS13, ..to("9.9.9.9", 443) }).0, Allowed);
    assert_eq!(
        verdict(&set, &Request { observed: Observed::Udp, ..to("9.9.9.9", 444) }).1,
        Reason::UdpRefused
    );

    let synthetic =
        Request { host: Some((HostEvidence::Synthetic, &db)), address: None, ..to("8.8.8.8", 5432) };
    assert_eq!(verdict(&set, &synthetic), (Allowed, Reason::RuleAllows, Some("db")));
    let claimed = Request { port: 5432, ..sni(&db) };
    assert_eq!(verdict(&set, &claimed).1, Reason::ProtocolMismatch, "a claim does not carry a tcp rule");
}

#[test]
fn audit_records_instead_of_enforcing() {
    let yesterday = crate::Date::from_days(19_999);
    let audited = |until, rules| {
        let document = crate::Document { audit_until: Some(until), ..document("a", rules) };
        set(&[document])
    };
    let host = name("no.example.test");
    let rules = || {
        vec![rule("ok", vec![hosts(&["ok.example.test"])]), deny("bad", vec![hosts(&["bad.example.test"])])]
    };
    let open = audited(TODAY, rules());
    let decision = open.decide(&sni(&host));
    assert_eq!(said(&open, &decision), (WouldDeny, Reason::NoRule, None));
    assert_eq!(decision.treatment.map(|treatment| treatment.dial), Some(Dial::OriginalDestination));
    let bad = name("bad.example.test");
    assert_eq!(verdict(&open, &sni(&bad)), (WouldDeny, Reason::RuleDenies, Some("bad")));
    assert_eq!(verdict(&open, &to("169.254.169.254", 80)), (Denied, Reason::AddressMetadata, None));
    assert_eq!(verdict(&audited(yesterday, rules()), &sni(&host)).0, Denied, "audit has ended");

    let enforced = document("b", vec![]);
    let mixed = set(&[crate::Document { audit_until: Some(TODAY), ..document("a", rules()) }, enforced]);
    assert_eq!(verdict(&mixed, &sni(&host)).0, Denied, "one enforced policy enforces the default");

    let lenient =
        set_of(vec![Rule { audit_until: Some(TODAY), ..rule("ok", vec![hosts(&["ok.example.test"])]) }]);
    let ok = name("ok.example.test");
    let old = Request { observed: Observed::Tls { offers_tls13: false, ech: false }, ..sni(&ok) };
    let decision = lenient.decide(&old);
    assert_eq!(said(&lenient, &decision), (WouldDeny, Reason::TlsVersionClient, Some("ok")));
    assert_eq!(decision.treatment.map(|t| t.tls), Some(TlsMode::Passthrough { min_tls12: true }));
    assert_eq!(verdict(&lenient, &sni(&host)).0, Denied, "only its own demands are audited");
}

#[test]
fn udp_destinations_are_what_is_left() {
    let set = set_of(vec![
        udp(rule("dns", vec![cidrs(&["9.9.9.8/30"], &["9.9.9.8/32"])]), 53..=60),
        udp(
            Rule { action: crate::document::Action::Deny, ..rule("no", vec![cidrs(&["9.9.9.10/31"], &[])]) },
            55..=55,
        ),
        udp(rule("all", vec![cidrs(&["224.0.0.0/3"], &[])]), 1..=1),
        Rule { ports: vec![], ..rule("time", vec![Destination::Grants(vec![Grant::Time])]) },
    ]);
    let shown: Vec<String> = set
        .udp_destinations()
        .iter()
        .map(|to| format!("{} {}-{}", to.net, to.ports.start(), to.ports.end()))
        .collect();
    assert_eq!(
        shown,
        [
            "fd00:ec2::123/128 123-123",
            "9.9.9.9/32 53-60",
            "9.9.9.10/31 53-54",
            "9.9.9.10/31 56-60",
            "169.254.169.123/32 123-123",
        ]
    );
}

/// A `udp` rule over the proxy's own address opens nothing of the proxy to the kernel's set.
#[test]
fn own_listeners_are_no_datagram_destinations() {
    let listener = |text: &str| text.parse().expect("a socket address");
    let wide = udp(rule("all", vec![cidrs(&["10.2.0.0/30", "2600::/126"], &[])]), 1..=65535);
    for (own, address, port) in [
        ("0.0.0.0:444", "10.2.0.1", 444),
        ("[::]:444", "2600::1", 444),
        ("10.2.0.1:53", "10.2.0.1", 53),
        ("[2600::1]:53", "2600::1", 53),
        ("[::ffff:10.2.0.1]:53", "10.2.0.1", 53),
    ] {
        let options = CompileOptions {
            own_listeners: vec![listener(own)],
            local_addresses: vec![ip("::ffff:10.2.0.1"), ip("2600::1")],
            ..CompileOptions::default()
        };
        let set = PolicySet::compile(&[document("p", vec![wide.clone()])], &options).expect("one rule");
        let listed = |port| {
            let holds =
                |to: &crate::set::UdpDestination| to.net.contains(&ip(address)) && to.ports.contains(&port);
            set.udp_destinations().iter().any(holds)
        };
        let judged = |port| verdict(&set, &Request { observed: Observed::Udp, ..to(address, port) });
        assert_eq!((listed(port), judged(port).1), (false, Reason::AddressOwnListener), "{own}");
        assert_eq!((listed(port + 1), judged(port + 1).0), (true, Allowed), "{own}, one port on");
    }
}

#[test]
fn of_neighbours_the_first_rule_is_named() {
    let at =
        |name, port| Rule { ports: vec![port..=port], ..rule(name, vec![hosts(&["**.a.example.test"])]) };
    let set = set_of(vec![at("first", 8443), at("second", 443)]);
    let host = name("b.example.test");
    let near = set.decide(&sni(&host)).nearest.map(|near| &*set.rule(near.rule).name);
    assert_eq!(near, Some("first"));
}

#[test]
fn the_nearest_grant_is_the_one_at_the_same_port() {
    let grant = |name, grant| Rule { ports: vec![], ..rule(name, vec![Destination::Grants(vec![grant])]) };
    let set = set_of(vec![grant("agent", Grant::EksPodIdentity)]);
    let request = Request { observed: Observed::Udp, ..to("169.254.170.23", 2703) };
    let near = set.decide(&request).nearest.map(|near| near.failed);
    assert_eq!(near, Some(Predicate::Protocol));
    let near = set.decide(&Request { port: 81, ..request }).nearest.map(|near| near.failed);
    assert_eq!(near, Some(Predicate::Port));
}

#[test]
fn peek_waits_only_where_bytes_decide() {
    use Peek::{Brief, Needed, Unneeded};
    let db = name("db.example.test");
    let set = set_of(vec![
        rule("web", vec![hosts(&["ok.example.test"])]),
        tcp(rule("db", vec![hosts(&["db.example.test"])]), 5432..=5432),
        tcp(rule("net", vec![cidrs(&["10.0.0.0/8"], &[])]), 22..=22),
        Rule { ports: vec![8443..=8443], ..rule("tls-net", vec![cidrs(&["10.0.0.0/8"], &[])]) },
    ]);
    assert_eq!(set.peek(Some(ip("8.8.8.8")), None, None, 443), Needed);
    assert_eq!(set.peek(Some(ip("8.8.8.8")), None, None, 444), Brief);
    assert_eq!(set.peek(Some(ip("10.0.0.1")), None, None, 22), Unneeded);
    assert_eq!(set.peek(Some(ip("10.0.0.1")), None, None, 8443), Needed);
    assert_eq!(set.peek(None, Some(&db), None, 5432), Unneeded);
    assert_eq!(set.peek(Some(ip("169.254.169.254")), None, None, 80), Unneeded);
    let grant = Rule { ports: vec![], ..rule("imds", vec![Destination::Grants(vec![Grant::Ec2Imds])]) };
    let set = set_of(vec![grant]);
    assert_eq!(set.peek(Some(ip("169.254.169.254")), None, None, 80), Needed);
    assert_eq!(set.peek(Some(ip("169.254.169.254")), None, None, 443), Unneeded);
}

/// A deny of plain HTTP by IPv4 holds over NAT64 only if the bytes are read there too.
#[test]
fn peek_waits_for_a_denial_of_what_an_address_carries() {
    let no_http = Rule {
        protocol: Protocol::Http,
        tls: TlsMode::None,
        ports: vec![1..=65535],
        ..deny("no-http", vec![cidrs(&["10.1.0.0/16"], &[])])
    };
    let set = set_of(vec![tcp(rule("all", vec![cidrs(&["0.0.0.0/0", "::/0"], &[])]), 1..=65535), no_http]);
    for (address, peek) in [
        ("10.1.2.3", Peek::Needed),
        ("64:ff9b::a01:203", Peek::Needed),
        ("2002:a01:203::1", Peek::Needed),
        ("64:ff9b::a02:203", Peek::Unneeded),
        ("2600::1", Peek::Unneeded),
    ] {
        assert_eq!(set.peek(Some(ip(address)), None, None, 80), peek, "{address}");
        let http = Request { observed: Observed::Http, ..to(address, 80) };
        assert_eq!(set.decide(&http).verdict == Denied, peek == Peek::Needed, "{address}");
    }
}

#[test]
fn names_are_asked_only_where_a_rule_could_allow_them() {
    let wide = Rule { ports: vec![443..=444], ..rule("some", vec![hosts(&["*.example.test"])]) };
    let set = set_of(vec![
        wide,
        tcp(rule("db", vec![private_hosts(&["db.example.org"])]), 5432..=5432),
        deny("half", vec![hosts(&["half.example.test"])]),
        Rule { ports: vec![1..=443, 444..=500], ..deny("whole", vec![hosts(&["whole.example.test"])]) },
    ]);
    let judged = |host: &str| set.judge_name(&name(host), TODAY);
    let facts = |host: &str| {
        let decision = judged(host);
        (decision.verdict, decision.reason, decision.synthetic, decision.private, decision.wildcard)
    };
    assert_eq!(facts("a.example.test"), (Allowed, Reason::RuleAllows, false, false, true));
    assert_eq!(facts("db.example.org"), (Allowed, Reason::RuleAllows, true, true, false));
    assert_eq!(facts("half.example.test").0, Allowed, "port 444 is left");
    assert_eq!(facts("whole.example.test").1, Reason::RuleDenies);
    assert_eq!(facts("a.b.example.test").1, Reason::NameNotAllowed);
    assert_eq!(judged("whole.example.test").verdict, Denied);
}

#[test]
fn audit_lets_every_name_answer_with_private_addresses() {
    let rules = || vec![rule("ok", vec![hosts(&["ok.example.test"])])];
    let private = |set: &PolicySet, host| set.judge_name(&name(host), TODAY).private;
    let audited = set(&[crate::Document { audit_until: Some(TODAY), ..document("a", rules()) }]);
    assert!(private(&audited, "ok.example.test") && private(&audited, "unknown.example.test"));
    assert!(!private(&set_of(rules()), "ok.example.test"));
}

#[test]
fn a_deny_without_protocol_covers_every_protocol() {
    let set = set_of(vec![
        tcp(rule("net", vec![cidrs(&["8.0.0.0/8"], &[])]), 443..=443),
        deny("no", vec![cidrs(&["8.8.0.0/16"], &[])]),
        Rule { protocol: Protocol::Udp, tls: TlsMode::None, ..rule("udp", vec![cidrs(&["8.0.0.0/8"], &[])]) },
    ]);
    assert_eq!(verdict(&set, &to("8.8.8.8", 443)).1, Reason::RuleDenies);
    assert_eq!(
        verdict(&set, &Request { observed: Observed::Udp, ..to("8.8.8.8", 443) }).1,
        Reason::RuleDenies
    );
    assert!(set.udp_destinations().iter().all(|to| !to.net.contains(&ip("8.8.8.8"))));
    assert_eq!(verdict(&set, &to("8.9.8.8", 443)).0, Allowed);
}

#[test]
fn explanations_name_the_rule_the_lack_and_the_way_out() {
    let set = set_of(vec![
        rule("web", vec![hosts(&["www.example.test"])]),
        Rule { ports: vec![8080..=8090], ..rule("api", vec![hosts(&["api.example.test"])]) },
    ]);
    let host = name("api.example.test");
    let shown = set.explain(&sni(&host)).to_string();
    assert_eq!(
        shown,
        "DENIED  tls api.example.test:443 at 8.8.8.8
  why      No rule allows it. (no-rule)
  near     p/api (p.yaml:1): port 443 is not among its ports (8080-8090)
           p/web (p.yaml:1): api.example.test is not www.example.test
  checked  1. fixed-table: nothing against 8.8.8.8
           2. deny-rules: none of 0 matches
           3. allow-rules: none of 2 matches
           4. default: denied
  fix      Add an allow rule for this destination.
  rule to add under `spec.egress`:
    - name: api-example-test-443
      to: [ { hosts: [ api.example.test ] } ]
      ports: [ 443 ]
"
    );
    let imds = set.explain(&to("169.254.169.254", 80));
    assert_eq!(imds.suggestion.as_deref(), Some("- name: ec2-imds\n  to: [ { grants: [ ec2-imds ] } ]\n"));
    let loopback = set.explain(&to("127.0.0.1", 80)).suggestion.expect("a comment");
    assert!(loopback.starts_with("# no rule opens"), "{loopback}");
}

#[test]
fn workloads_are_dialled_over_the_mesh_and_their_denials_hold_for_names() {
    let id = |text: &str| crate::SpiffeId::parse(text).expect("an ID");
    let workloads =
        |text: &str| Destination::Workloads(vec![crate::SpiffePattern::parse(text).expect("a pattern")]);
    let mesh = |name: &str, text: &str| Rule {
        tls: TlsMode::Mesh,
        ..tcp(rule(name, vec![workloads(text)]), 8080..=8080)
    };
    let inside = rule("inside", vec![private_hosts(&["in.example.test"])]);
    let never = Rule { ports: vec![1..=65535], ..deny("never", vec![workloads("spiffe://t/secret/**")]) };
    let set = set_of(vec![mesh("orders", "spiffe://t/orders/*"), inside, never]);
    let (orders, secret) = (id("spiffe://t/orders/a"), id("spiffe://t/secret/a"));
    let to_orders = Request { peer: Some(&orders), ..to("10.0.0.7", 8080) };
    let decision = set.decide(&to_orders);
    assert_eq!(said(&set, &decision), (Allowed, Reason::RuleAllows, Some("orders")));
    let treatment = decision.treatment.expect("it is allowed");
    assert_eq!((treatment.dial, treatment.tls), (Dial::Workload, TlsMode::Mesh));
    assert_eq!(verdict(&set, &to("10.0.0.7", 8080)), (Denied, Reason::NoRule, None), "nobody is known there");
    assert_eq!(set.peek(Some(ip("10.0.0.7")), None, Some(&orders), 8080), Peek::Unneeded);
    assert_eq!(set.peek(Some(ip("10.0.0.7")), None, None, 8080), Peek::Brief);
    let named = |id: &crate::SpiffeId| set.rule_for_peer(id).map(|rule| &*set.rule(rule).name);
    assert_eq!((named(&orders), named(&secret)), (Some("orders"), None));

    let host = name("in.example.test");
    let by_name = Request { address: None, ..sni(&host) };
    let decision = set.decide(&by_name);
    let judge = |peer| set.judge_answer(&Request { peer, ..by_name.clone() }, &decision, ip("10.0.0.8"));
    assert!(judge(None).is_ok() && judge(Some(&orders)).is_ok());
    assert_eq!(judge(Some(&secret)).map_err(|refused| refused.reason), Err(Reason::RuleDenies));
}
