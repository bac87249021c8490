//! What is never asked upstream, and how that is told.

use sidegate_api::access_record::CloseReason;

use super::*;
use crate::dns::{ResolveError, resolve_permitted, resolver::Family};

#[tokio::test]
async fn a_name_that_no_rule_allows_is_never_asked_upstream() {
    let world = World::start(good).await;
    assert_eq!(world.addresses("c2VjcmV0.evil.test").await, refused());
    assert_eq!(world.asked(), Vec::<String>::new());
    let record = world.record();
    assert_eq!((&*record.verdict, &*record.reason, &*record.protocol), ("denied", "name-not-allowed", "dns"));
    assert_eq!(
        (record.host.as_deref(), record.rule, record.generation),
        (Some("c2vjcmv0.evil.test"), None, 1)
    );
    let dns = record.dns.unwrap();
    assert_eq!((&*dns.question, &*dns.response, dns.answers), ("A", "REFUSED", 0));
    assert!(record.explanation.unwrap().contains("Add a rule with this host"));
    assert_eq!(record.close_reason, CloseReason::Denied);
}

#[tokio::test]
async fn denials_can_be_told_as_nxdomain() {
    let settings = Settings { dns_denied_nxdomain: true, ..Settings::default() };
    let world = World::with(settings, policy(POLICY, 1), good).await;
    assert_eq!(world.addresses("evil.test").await, (ResponseCode::NXDomain, Vec::new()));
    assert_eq!(world.record().reason, "name-not-allowed");
}

#[tokio::test]
async fn a_deny_rule_wins_and_is_named() {
    let world = World::start(good).await;
    assert_eq!(world.addresses("fine.pages.test").await, found());
    assert_eq!(world.addresses("bad.pages.test").await, refused());
    assert_eq!(world.asked(), ["fine.pages.test"]);
    let record = world.records().pop().unwrap();
    assert_eq!((&*record.reason, record.rule.as_deref()), ("rule-denies", Some("forbidden")));
}

#[tokio::test]
async fn wildcards_keep_their_bounds() {
    let world = World::start(good).await;
    for name in ["pages.test", "a.b.pages.test", "evilpages.test"] {
        assert_eq!(world.addresses(name).await, refused(), "{name}");
    }
    assert_eq!(world.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn without_a_policy_nothing_is_asked() {
    let world = World::with(Settings::default(), PolicySet::empty(Generation(0)), good).await;
    assert_eq!(world.addresses("api.shop.test").await, refused());
    assert_eq!((world.record().reason, world.asked()), ("no-policy".to_owned(), Vec::new()));
}

#[tokio::test]
async fn other_types_are_refused_even_of_allowed_names() {
    let world = World::start(good).await;
    let types = [
        RecordType::TXT,
        RecordType::NULL,
        RecordType::ANY,
        RecordType::MX,
        RecordType::SRV,
        RecordType::NS,
        RecordType::SOA,
        RecordType::CNAME,
        RecordType::PTR,
        RecordType::Unknown(65280),
    ];
    for record_type in types {
        let answer = world.ask("api.shop.test", record_type).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::Refused, "{record_type}");
    }
    assert_eq!(world.asked(), Vec::<String>::new());
    let records = world.records();
    assert_eq!(records.len(), types.len());
    assert!(records.iter().all(|record| record.reason == "dns-type" && record.verdict == "denied"));
}

/// However denied names are answered: that an allowed one does not exist would be untrue.
#[tokio::test]
async fn another_type_of_an_allowed_name_is_never_told_not_to_exist() {
    let settings = Settings { dns_denied_nxdomain: true, ..Settings::default() };
    let world = World::with(settings, policy(POLICY, 1), good).await;
    for (name, code, reason) in [
        ("api.shop.test", ResponseCode::Refused, "dns-type"),
        ("secret.evil.example", ResponseCode::NXDomain, "name-not-allowed"),
    ] {
        let answer = world.ask(name, RecordType::TXT).await;
        assert_eq!(answer.metadata.response_code, code, "{name}");
        assert_eq!(world.records().pop().map(|record| record.reason).as_deref(), Some(reason), "{name}");
    }
    assert_eq!(world.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn names_that_are_no_host_names_are_refused_and_recorded_printably() {
    let world = World::start(good).await;
    let names: [&[&[u8]]; 4] = [
        &[b"_dmarc", b"pages", b"test"],
        &[b"a\0b", b"pages", b"test"],
        &[b"a.b", b"pages", b"test"],
        &[b"\x1b[2J\r\n", b"pages", b"test"],
    ];
    for labels in names {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_labels(labels.to_vec()).unwrap(), RecordType::A));
        let answer = Message::from_vec(&world.send(&message.to_vec().unwrap()).await).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    }
    assert_eq!(world.asked(), Vec::<String>::new());
    for record in world.records() {
        assert_eq!(record.reason, "host-invalid");
        let host = record.host.unwrap();
        assert!(host.bytes().all(|byte| byte.is_ascii_graphic()), "{host:?}");
    }
}

#[tokio::test]
async fn each_malformed_message_has_one_record() {
    let world = World::start(good).await;
    let mut two = Message::new(7, MessageType::Query, OpCode::Query);
    two.add_query(Query::query(Name::from_ascii("api.shop.test.").unwrap(), RecordType::A));
    two.add_query(Query::query(Name::from_ascii("evil.test.").unwrap(), RecordType::A));
    let answer = Message::from_vec(&world.send(&two.to_vec().unwrap()).await).unwrap();
    assert_eq!((answer.metadata.id, answer.metadata.response_code), (7, ResponseCode::FormErr));
    assert_eq!((world.record().reason, world.asked()), ("dns-malformed".to_owned(), Vec::new()));
}

#[tokio::test]
async fn names_under_a_pattern_have_a_budget() {
    let settings = Settings { dns_names_per_minute: 3, ..Settings::default() };
    let world = World::with(settings, policy(POLICY, 1), good).await;
    for name in ["a.pages.test", "b.pages.test", "c.pages.test"] {
        assert_eq!(world.addresses(name).await, found());
    }
    assert_eq!(world.addresses("d.pages.test").await, refused());
    let record = world.records().pop().unwrap();
    let told = (&*record.verdict, &*record.reason, record.rule.as_deref());
    assert_eq!(told, ("denied", "dns-budget", Some("pages")));
    assert_eq!(world.addresses("a.pages.test").await, found(), "a name once let through stays so");
    assert_eq!(world.addresses("api.shop.test").await, found(), "names that rules spell out are free");
    world.gate.policies.replace(policy(POLICY, 2));
    assert_eq!(world.addresses("e.pages.test").await, refused(), "a new generation brings no new budget");
    assert_eq!(world.upstream.seen().len(), 4);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(world.addresses("d.pages.test").await, found(), "a minute later");
}

#[tokio::test]
async fn connections_and_questions_share_the_budget() {
    let settings = Settings { dns_names_per_minute: 2, ..Settings::default() };
    let world = World::with(settings, policy(POLICY, 1), good).await;
    for name in ["a.pages.test", "b.pages.test"] {
        assert!(resolve_permitted(&world.gate, &host(name), Family::V4).await.is_ok());
    }
    let third = resolve_permitted(&world.gate, &host("c.pages.test"), Family::V4).await;
    assert_eq!(third, Err(ResolveError::Budget));
    assert_eq!(world.addresses("d.pages.test").await, refused());
    assert!(resolve_permitted(&world.gate, &host("api.shop.test"), Family::V4).await.is_ok());
    assert_eq!(world.asked(), ["a.pages.test", "b.pages.test", "api.shop.test"]);
}

#[tokio::test]
async fn search_domain_candidates_get_nxdomain_so_that_clients_go_on() {
    let settings = Settings { dns_search: vec![host("ns.svc.cluster.local")], ..Settings::default() };
    let world = World::with(settings, policy(POLICY, 1), good).await;
    let nxdomain = (ResponseCode::NXDomain, Vec::new());
    for name in ["evil.test.ns.svc.cluster.local", "api.shop.test.corp.test", "a.pages.test.corp.test"] {
        assert_eq!(world.addresses(name).await, nxdomain, "{name}");
    }
    for name in ["evil.test", "xns.svc.cluster.local", "shop.test.corp.test"] {
        assert_eq!(world.addresses(name).await, refused(), "{name}");
    }
    assert_eq!(world.asked(), Vec::<String>::new());
    let reasons: Vec<_> = world.records().into_iter().map(|record| record.reason).collect();
    assert_eq!(reasons[..3], ["dns-search"; 3]);
    assert_eq!(reasons[3..], ["name-not-allowed"; 3]);
}

#[tokio::test]
async fn names_of_private_addresses_do_not_exist() {
    let world = World::start(good).await;
    let answer = world.ask("1.0.0.10.in-addr.arpa", RecordType::PTR).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    let answer = world.ask("8.8.8.8.in-addr.arpa", RecordType::PTR).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    assert_eq!(world.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn too_many_waiting_questions_are_shed() {
    let settings = Settings { dns_names_per_minute: 10_000, ..Settings::default() };
    let world = World::with(settings, policy(POLICY, 1), |_| Vec::new()).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for n in 0..super::super::WAITING {
        let bytes = question(&format!("n{n}.pages.test"), RecordType::A);
        socket.send_to(&bytes, world.udp).await.unwrap();
        while world.upstream.count() <= n {
            tokio::task::yield_now().await;
        }
    }
    let answer = world.ask("one-more.pages.test", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(world.record().reason, "limit-questions");
    assert_eq!(world.addresses("evil.test").await, refused(), "verdicts still fall");
}
