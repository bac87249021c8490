//! Requests over the mesh, judged one by one.

use super::{
    super::requests::{get, read_answer},
    *,
};

const REQUESTS: &str = r#"
apiVersion: sidegate.dev/v1
kind: Policy
metadata: { name: test }
spec:
  egress:
    - name: orders
      to: [ { workloads: [ "spiffe://example.org/*" ] } ]
      ports: [ 8080 ]
      protocol: http
      http: [ { methods: [ GET ], paths: [ "/v1/**" ] } ]
"#;

/// The application answers every request with the head it saw.
fn answering(far: &mut Far) {
    let spare = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    spare.set_nonblocking(true).unwrap();
    let app = std::mem::replace(&mut far.app, tokio::net::TcpListener::from_std(spare).unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = app.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while let Ok(byte) = stream.read_u8().await {
                    head.push(byte);
                    if head.ends_with(b"\r\n\r\n") {
                        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", head.len());
                        stream.write_all(answer.as_bytes()).await.unwrap();
                        stream.write_all(&std::mem::take(&mut head)).await.unwrap();
                    }
                }
            });
        }
    });
}

async fn ask(client: &mut TcpStream, request: &str) -> (String, String) {
    client.write_all(request.as_bytes()).await.unwrap();
    read_answer(client).await
}

#[tokio::test]
async fn each_request_is_judged_and_the_workload_sees_those_that_are_allowed() {
    let mut pair = Pair::with(REQUESTS, Settings::default()).await;
    answering(&mut pair.far);
    let mut client = pair.near.client(ORDERS).await;
    let (head, seen) = ask(&mut client, &get("/v1/a", "orders.internal:8080")).await;
    assert!(head.starts_with("HTTP/1.1 200") && seen.starts_with("GET /v1/a HTTP/1.1\r\n"), "{head}{seen}");
    assert!(seen.contains("orders.internal:8080"), "{seen}");
    let post = "POST /v1/a HTTP/1.1\r\nHost: orders.internal:8080\r\nContent-Length: 0\r\n\r\n";
    assert!(ask(&mut client, post).await.0.starts_with("HTTP/1.1 403"));
    assert!(ask(&mut client, &get("/v2", "orders.internal:8080")).await.0.starts_with("HTTP/1.1 403"));
    ask(&mut client, &get("/v1/b", "orders.internal:8080")).await;
    drop(client);
    let records = pair.near.records(4).await;
    let reasons: Vec<_> = records.iter().map(|record| record.reason.as_str()).collect();
    assert_eq!(reasons, ["rule-allows", "http-not-allowed", "http-not-allowed", "rule-allows"]);
    assert_eq!(peer(&records[0]), (Some("1.3"), Some("spiffe://example.org/server")));
    assert_eq!(records[0].upstream.unwrap().to_string(), ORDERS_MESH);
    assert_eq!(peer(&records[1]), (None, None));
    assert_eq!(pair.far.behind.asked.lock().unwrap().len(), 1, "one stream for both");
}

#[tokio::test]
async fn streams_are_kept_for_one_peer_and_one_certificate() {
    let mut pair = Pair::with(REQUESTS, Settings::default()).await;
    answering(&mut pair.far);
    let mut client = pair.near.client(ORDERS).await;
    let streams = |pair: &Pair| pair.far.behind.asked.lock().unwrap().len();
    ask(&mut client, &get("/v1/a", "x")).await;
    // Another client of the same worker takes the idle one.
    let mut other = pair.near.client(ORDERS).await;
    ask(&mut other, &get("/v1/b", "x")).await;
    assert_eq!(streams(&pair), 1);
    pair.far.ours.replace(pair.far.domain.identity("client", pair.far.clock.now()));
    ask(&mut client, &get("/v1/c", "x")).await;
    assert_eq!(streams(&pair), 2, "none that showed the old certificate");
    // The address is another's now, who is not there: not a byte on the streams of the first.
    pair.know(&[("other", "10.0.0.7")]);
    let (head, body) = ask(&mut client, &get("/v1/d", "x")).await;
    assert!(head.starts_with("HTTP/1.1 502") && body.contains("mesh-peer-mismatch"), "{head}{body}");
    assert_eq!(streams(&pair), 2);
    // Nobody is known to be there: no rule any more.
    pair.know(&[]);
    let (head, body) = ask(&mut client, &get("/v1/e", "x")).await;
    assert!(head.starts_with("HTTP/1.1 403") && body.contains("no-rule"), "{head}{body}");
}

#[tokio::test]
async fn what_waits_for_a_request_goes_with_a_revoked_peer() {
    let mut pair = Pair::with(REQUESTS, Settings::default()).await;
    answering(&mut pair.far);
    let mut vigil = pair.vigil();
    let mut client = pair.near.client(ORDERS).await;
    ask(&mut client, &get("/v1/a", "x")).await;
    vigil.look();
    let theirs = pair.far.theirs.current().unwrap().identity.clone();
    let revoked = pair.far.domain.revoked(&[&theirs], pair.far.clock.now());
    let trust = sidegate_certs::TrustStore::new([pair.far.domain.bundle()]).with_revocations(revoked);
    pair.far.trust.replace(trust);
    vigil.look();
    let (head, body) = ask(&mut client, &get("/v1/b", "x")).await;
    assert!(head.starts_with("HTTP/1.1 502") && body.contains("mesh-peer-untrusted"), "{head}{body}");
}
