//! What is asked upstream, and what of the answer reaches the application.

use hickory_proto::rr::{
    RData, Record,
    rdata::{A, CNAME, TXT},
};
use sidegate_api::access_record::CloseReason;

use super::*;

#[tokio::test]
async fn an_allowed_name_is_answered_and_recorded_once() {
    let world = World::start(good).await;
    assert_eq!(world.addresses("API.shop.test").await, found());
    assert_eq!(
        world.asked(),
        ["api.shop.test"],
        "the canonical name is asked, whatever case the client chose"
    );
    let record = world.record();
    assert_eq!((&*record.verdict, &*record.reason), ("allowed", "rule-allows"));
    assert_eq!((record.policy.as_deref(), record.rule.as_deref()), (Some("shop"), Some("api")));
    assert_eq!(record.host.as_deref(), Some("api.shop.test"));
    assert_eq!((record.dns.unwrap().answers, record.close_reason), (1, CloseReason::Done));
    assert_eq!(world.gate.names.recall(GOOD.parse().unwrap()), [host("api.shop.test")]);
}

#[tokio::test]
async fn nothing_but_addresses_of_the_question_is_passed_on() {
    let world = World::start(|seen| {
        let mut answer = seen.addresses(300, &[GOOD]);
        let stranger = |owner: &str, rdata| Record::from_rdata(Name::from_ascii(owner).unwrap(), 300, rdata);
        answer.add_answer(stranger("evil.test.", RData::A(A::new(9, 9, 9, 10))));
        answer.add_answer(stranger("api.shop.test.", RData::TXT(TXT::new(vec!["command".to_owned()]))));
        answer.add_additional(stranger("api.shop.test.", RData::A(A::new(9, 9, 9, 11))));
        answer.metadata.authentic_data = true;
        answer.metadata.authoritative = true;
        vec![answer]
    })
    .await;
    let answer = world.ask("api.shop.test", RecordType::A).await;
    let owner = Name::from_ascii("api.shop.test.").unwrap();
    assert_eq!(answer.answers, [Record::from_rdata(owner, 300, RData::A(A::new(9, 9, 9, 9)))]);
    assert!(answer.authorities.is_empty() && answer.additionals.is_empty() && answer.edns.is_none());
    assert!(!answer.metadata.authentic_data && !answer.metadata.authoritative);
}

#[tokio::test]
async fn aliases_are_judged_at_the_final_address() {
    let world = World::start(|seen| {
        let owner = seen.message.queries[0].name().clone();
        let target = Name::from_ascii("host.elsewhere.test.").unwrap();
        let last = if seen.name() == "a.pages.test" { A::new(9, 9, 9, 9) } else { A::new(10, 0, 0, 1) };
        let mut answer = seen.code(ResponseCode::NoError);
        answer.add_answer(Record::from_rdata(owner, 300, RData::CNAME(CNAME(target.clone()))));
        answer.add_answer(Record::from_rdata(target, 300, RData::A(last)));
        vec![answer]
    })
    .await;
    assert_eq!(world.addresses("a.pages.test").await, found());
    assert_eq!(world.addresses("b.pages.test").await, empty());
}

#[tokio::test]
async fn addresses_that_names_must_not_lead_to_are_withheld() {
    let forbidden = [
        ("10.0.0.1", "address-private"),
        ("100.64.0.1", "address-private"),
        ("127.0.0.1", "address-loopback"),
        ("169.254.169.254", "address-metadata"),
        ("0.0.0.0", "address-unspecified"),
        ("198.18.0.1", "address-reserved"),
        ("::1", "address-loopback"),
        ("fd12::1", "address-private"),
        ("fd00:5de6::1", "address-reserved"),
        ("::ffff:9.9.9.9", "address-embedded"),
    ];
    for (address, reason) in forbidden {
        let world = World::start(move |seen| vec![seen.addresses(300, &[address])]).await;
        let family = if address.contains(':') { RecordType::AAAA } else { RecordType::A };
        let answer = world.ask("api.shop.test", family).await;
        let told = (answer.metadata.response_code, answer.answers.len());
        assert_eq!(told, (ResponseCode::NoError, 0), "{address}");
        let record = world.record();
        assert_eq!((&*record.verdict, &*record.reason), ("denied", reason), "{address}");
        assert!(record.explanation.unwrap().contains(address));
        assert_eq!(world.gate.names.recall(address.parse().unwrap()), []);
    }
}

#[tokio::test]
async fn of_a_mixed_answer_the_rest_is_kept() {
    let world = World::start(|seen| vec![seen.addresses(300, &["10.0.0.1", GOOD])]).await;
    assert_eq!(world.addresses("api.shop.test").await, found());
    let record = world.record();
    assert_eq!((&*record.verdict, &*record.reason), ("allowed", "rule-allows"));
    assert!(record.explanation.unwrap().starts_with("1 of 2 addresses withheld, such as 10.0.0.1"));
}

#[tokio::test]
async fn private_opens_private_addresses_and_nothing_else() {
    let addresses = ["10.0.0.1", "169.254.169.254", "127.0.0.1", "198.18.0.1"];
    let world = World::start(move |seen| vec![seen.addresses(300, &addresses)]).await;
    let (code, addresses) = world.addresses("app.internal.test").await;
    assert_eq!((code, addresses), (ResponseCode::NoError, vec!["10.0.0.1".to_owned()]));
}

#[tokio::test]
async fn rebinding_is_caught_when_the_answer_changes() {
    let world = World::start(|seen| {
        vec![seen.addresses(0, &[if seen.number == 0 { GOOD } else { "169.254.169.254" }])]
    })
    .await;
    assert_eq!(world.addresses("api.shop.test").await, found());
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(6)).await;
    assert_eq!(world.addresses("api.shop.test").await, empty());
    assert_eq!(world.upstream.count(), 2);
    assert_eq!(world.records().pop().unwrap().reason, "address-metadata");
}

#[tokio::test]
async fn an_answer_that_comes_after_the_rule_is_gone_is_not_passed_on() {
    let gate: Arc<OnceLock<Arc<Gate>>> = Arc::default();
    let changed = gate.clone();
    let world = World::start(move |seen| {
        changed.get().unwrap().policies.replace(policy(OTHER, 2));
        good(seen)
    })
    .await;
    assert!(gate.set(world.gate.clone()).is_ok());
    assert_eq!(world.addresses("api.shop.test").await, refused());
    assert_eq!(world.asked(), ["api.shop.test"], "the control: the old policy did ask");
    let record = world.record();
    assert_eq!((&*record.verdict, &*record.reason, record.generation), ("denied", "name-not-allowed", 2));
    assert_eq!(record.rule, None);
}

#[tokio::test]
async fn opaque_rules_get_synthetic_addresses_and_no_question_leaves() {
    let world = World::start(good).await;
    let (v4, v6) = world.gate.synthetic.assign(&host("sql.shop.test")).unwrap();
    assert_eq!(world.addresses("sql.shop.test").await, (ResponseCode::NoError, vec![v4.to_string()]));
    let answer = world.ask("sql.shop.test", RecordType::AAAA).await;
    assert_eq!(answer.answers[0].data.to_string(), v6.to_string());
    assert_eq!(answer.answers[0].ttl, 60);
    assert_eq!(world.asked(), Vec::<String>::new());
    assert_eq!(world.records().len(), 2);
}

#[tokio::test]
async fn https_records_are_absent_so_that_clients_do_without_ech() {
    let world = World::start(good).await;
    for record_type in [RecordType::HTTPS, RecordType::SVCB] {
        let answer = world.ask("api.shop.test", record_type).await;
        assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::NoError, 0));
        let answer = world.ask("evil.test", record_type).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    }
    assert_eq!(world.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn localhost_is_answered_here() {
    let world = World::start(good).await;
    assert_eq!(world.addresses("localhost").await.1, ["127.0.0.1"]);
    let answer = world.ask("localhost", RecordType::AAAA).await;
    assert_eq!(answer.answers[0].data.to_string(), "::1");
    assert!(world.records().iter().all(|record| record.reason == "loopback" && record.verdict == "allowed"));
    assert_eq!(world.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn audit_asks_and_records_what_it_would_deny() {
    let world = World::with(Settings::default(), policy(AUDIT, 1), |seen| {
        vec![seen.addresses(300, &["10.0.0.1", "169.254.169.254"])]
    })
    .await;
    let (code, addresses) = world.addresses("elsewhere.test").await;
    assert_eq!((code, addresses), (ResponseCode::NoError, vec!["10.0.0.1".to_owned()]));
    let record = world.record();
    assert_eq!((&*record.verdict, &*record.reason), ("would-deny", "name-not-allowed"));
}

#[tokio::test]
async fn what_upstream_says_of_absence_is_told_and_its_failure_is_its_own() {
    let world = World::start(|seen| match seen.name().as_str() {
        "absent.pages.test" => vec![seen.code(ResponseCode::NXDomain)],
        "empty.pages.test" => vec![seen.code(ResponseCode::NoError)],
        _ => vec![seen.code(ResponseCode::ServFail)],
    })
    .await;
    assert_eq!(world.addresses("absent.pages.test").await, (ResponseCode::NXDomain, Vec::new()));
    assert_eq!(world.addresses("empty.pages.test").await, empty());
    assert_eq!(world.addresses("broken.pages.test").await, (ResponseCode::ServFail, Vec::new()));
    let records = world.records();
    let told: Vec<_> = records.iter().map(|r| (&*r.verdict, &*r.reason, r.close_reason)).collect();
    assert_eq!(told[..2], [("allowed", "rule-allows", CloseReason::Done); 2]);
    assert_eq!(told[2], ("allowed", "resolve-failed", CloseReason::ConnectFailed));
}

#[tokio::test]
async fn a_question_cut_off_by_the_end_is_recorded() {
    let mut world = World::start(|_| Vec::new()).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&question("api.shop.test", RecordType::A), world.udp).await.unwrap();
    while world.upstream.count() == 0 {
        tokio::task::yield_now().await;
    }
    world.serving.shutdown().await;
    while world.records().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.record().close_reason, CloseReason::Drained);
}

#[tokio::test]
async fn the_name_of_a_peer_is_answered_where_a_rule_allows_that_peer() {
    use crate::peers::{Peer, Peers};
    const WORKLOADS: &str = r#"
apiVersion: sidegate.dev/v1
kind: Policy
metadata: { name: mesh }
spec:
  egress:
    - name: orders
      to: [ { workloads: [ "spiffe://example.org/orders" ] } ]
      ports: [ 8080 ]
      protocol: tcp
    - name: never
      action: deny
      to: [ { hosts: [ closed.internal ] } ]
      ports: [ "1-65535" ]
"#;
    let world = World::with(Settings::default(), policy(WORKLOADS, 1), good).await;
    let peer = |name: &str, addresses: &[&str], hosts: &[&str]| Peer {
        id: sidegate_policy::SpiffeId::parse(&format!("spiffe://example.org/{name}")).unwrap(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        port: 15008,
        hosts: hosts.iter().map(|name| host(name)).collect(),
    };
    world.gate.policies.replace_peers(Peers::new(vec![
        peer("orders", &["10.0.0.7", "10.0.0.8"], &["orders.internal", "closed.internal"]),
        peer("stock", &["10.0.0.9"], &["stock.internal"]),
    ]));
    let found = ["10.0.0.7", "10.0.0.8"].map(str::to_owned).to_vec();
    assert_eq!(world.addresses("Orders.internal").await, (ResponseCode::NoError, found));
    assert_eq!(
        world.ask("orders.internal", RecordType::AAAA).await.metadata.response_code,
        ResponseCode::NoError
    );
    for refused in ["stock.internal", "closed.internal", "other.internal"] {
        let answer = world.ask(refused, RecordType::A).await;
        assert_eq!(
            (answer.metadata.response_code, answer.answers.len()),
            (ResponseCode::Refused, 0),
            "{refused}"
        );
    }
    assert!(world.asked().is_empty(), "nobody else is asked");
}
