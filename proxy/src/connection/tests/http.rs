use super::{super::world::Zone, *};

const WEB: &str = "93.184.216.34:443";

/// What the client hears when it says `words`, and the record.
async fn told(words: &[u8]) -> (Vec<u8>, AccessRecord) {
    let world = World::start(POLICY, ZONE).await;
    let mut client = world.client(WEB).await;
    client.write_all(words).await.unwrap();
    let heard = read_all(&mut client).await.expect("words, not a reset");
    let record = world.record().await;
    assert_eq!((record.verdict.as_str(), record.close_reason), ("denied", CloseReason::Denied));
    assert!(world.net.dialled().is_empty());
    (heard, record)
}

fn body(response: &[u8]) -> serde_json::Value {
    let text = std::str::from_utf8(response).unwrap();
    serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test]
async fn a_denied_request_is_answered_with_the_reason_of_its_record() {
    let (heard, record) = told(b"GET /?token=s3cret HTTP/1.1\r\nHost: WWW.nowhere.example\r\n\r\n").await;
    assert!(heard.starts_with(b"HTTP/1.1 403 Forbidden\r\n"));
    let body = body(&heard);
    assert_eq!((body["verdict"].as_str(), body["reason"].as_str()), (Some("denied"), Some(&*record.reason)));
    assert_eq!(body["host"], "www.nowhere.example");
    assert_eq!(body["explanation"].as_str(), record.explanation.as_deref());
    assert!(!String::from_utf8_lossy(&heard).contains("s3cret"));
}

#[tokio::test]
async fn a_head_request_gets_no_body() {
    let (heard, _) = told(b"HEAD / HTTP/1.1\r\nHost: www.nowhere.example\r\n\r\n").await;
    assert!(heard.starts_with(b"HTTP/1.1 403 ") && heard.ends_with(b"\r\n\r\n"));
}

#[tokio::test]
async fn a_malformed_head_is_a_bad_request() {
    let (heard, record) = told(b"GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n").await;
    assert!(heard.starts_with(b"HTTP/1.1 400 Bad Request\r\n"));
    assert_eq!(record.reason, "http-malformed");
}

/// Where no rule applies the form of the head is not why it is refused, but it is told.
#[tokio::test]
async fn a_malformed_head_is_told_where_no_rule_applies() {
    let explained = async |words: &[u8]| {
        let world = World::start(POLICY, ZONE).await;
        let mut client = world.client("93.184.216.34:9").await;
        client.write_all(words).await.unwrap();
        let _ = read_all(&mut client).await;
        let record = world.record().await;
        assert_eq!(story(&record), ("denied", "no-rule", CloseReason::Denied));
        record.explanation.unwrap()
    };
    let twice = explained(b"GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n").await;
    assert!(twice.ends_with(" Besides: The HTTP head is malformed or ambiguous."), "{twice}");
    let once = explained(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    assert!(!once.contains("Besides"), "{once}");
}

/// Anything to one name, TLS to its siblings, so that the first bytes are looked at and may be HTTP.
const PLAIN: &str = r#"
apiVersion: sidegate.dev/v1
kind: Policy
metadata: { name: test }
spec:
  egress:
    - name: plain
      reason: "serves no TLS"
      to: [ { hosts: [ www.ok.example ] } ]
      ports: [ 80 ]
      protocol: tcp
      tls: { mode: none }
    - name: others
      to: [ { hosts: [ "*.ok.example" ] } ]
      ports: [ 80 ]
"#;

async fn told_after_the_verdict(zone: Zone) -> (Option<Vec<u8>>, AccessRecord) {
    let world = World::start(PLAIN, zone).await;
    let host = sidegate_policy::HostName::parse("www.ok.example").unwrap();
    let (v4, _) = world.worker.gate.synthetic.assign(&host).unwrap();
    let mut client = world.client(&format!("{v4}:80")).await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: www.ok.example\r\n\r\n").await.unwrap();
    let heard = read_all(&mut client).await;
    assert!(world.net.dialled().is_empty());
    (heard, world.record().await)
}

#[tokio::test]
async fn a_denial_after_the_verdict_is_answered_too() {
    let (heard, record) = told_after_the_verdict(&[("www.ok.example", &["10.7.7.7"])]).await;
    assert_eq!(story(&record), ("denied", "address-private", CloseReason::Denied));
    let heard = heard.expect("words, not a reset");
    assert!(heard.starts_with(b"HTTP/1.1 403 Forbidden\r\n"));
    let body = body(&heard);
    assert_eq!(
        (body["reason"].as_str(), body["rule"].as_str()),
        (Some("address-private"), Some("test/plain"))
    );
    assert_eq!(body["explanation"].as_str(), record.explanation.as_deref());
}

#[tokio::test]
async fn a_failure_beyond_the_proxy_is_not_passed_off_as_an_answer() {
    let (heard, record) = told_after_the_verdict(&[]).await;
    assert_eq!(story(&record), ("allowed", "resolve-not-found", CloseReason::ConnectFailed));
    assert_eq!(heard, None);
}

#[tokio::test]
async fn the_nearest_rule_and_what_it_lacks_are_named() {
    let world = World::start(&PLAIN.replace("protocol: tcp", "protocol: http"), ZONE).await;
    let mut client = world.client("93.184.216.34:8080").await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: www.ok.example\r\n\r\n").await.unwrap();
    let heard = read_all(&mut client).await.expect("words, not a reset");
    let told = body(&heard)["explanation"].as_str().unwrap().to_owned();
    assert!(
        told.contains("Nearest rule: `plain` of policy `test` (test.yaml:7), but it names another port"),
        "{told}"
    );
    assert_eq!(world.record().await.explanation.as_deref(), Some(&*told));
}
