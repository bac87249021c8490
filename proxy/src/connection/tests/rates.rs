//! `limits`: what comes too fast is told when to come again, and passes then.

use std::time::Duration;

use super::{
    requests::{API, get, plain, plain_origin, read_answer, status},
    *,
};

/// Beside what [`plain`] says.
const MORE: &str = r#"      limits: { requestsPerSecond: 1, burst: 2 }
"#;

async fn ask(world: &World) -> (String, String) {
    let mut client = world.client(API).await;
    client.write_all(get("/", "www.ok.example").as_bytes()).await.unwrap();
    read_answer(&mut client).await
}

#[tokio::test]
async fn what_comes_too_fast_is_told_when_to_come_again() {
    let world = World::start(&plain(MORE), ZONE).await;
    let heads = plain_origin(world.origin(API).await);
    for _ in 0..2 {
        assert_eq!(status(&ask(&world).await), "200");
    }
    // Over another connection, as a client that opens one for each request would.
    let answer = ask(&world).await;
    assert_eq!(status(&answer), "429");
    assert!(answer.0.contains("retry-after: 1\r\n"), "{}", answer.0);
    let body: serde_json::Value = serde_json::from_str(&answer.1).unwrap();
    assert_eq!((body["reason"].as_str(), body["rule"].as_str()), (Some("limit-requests"), Some("test/api")));
    let records = world.records(3).await;
    assert_eq!(story(&records[2]), ("denied", "limit-requests", CloseReason::Denied));
    assert_eq!(records[2].http.as_ref().unwrap().status, 429);
    assert_eq!(heads.lock().unwrap().len(), 2, "nothing of it arrives");
    // The same bucket under the next generation; a token later the next request passes.
    world.worker.gate.policies.replace(policies(&plain(MORE), 2));
    assert_eq!(status(&ask(&world).await), "429");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(1)).await;
    tokio::time::resume();
    assert_eq!(status(&ask(&world).await), "200");
}

#[tokio::test]
async fn in_audit_it_passes_and_is_recorded() {
    let rules = plain(MORE).replace("      limits:", "      auditUntil: 2199-12-31\n      limits:");
    let world = World::start(&rules, ZONE).await;
    let _heads = plain_origin(world.origin(API).await);
    for _ in 0..3 {
        assert_eq!(status(&ask(&world).await), "200");
    }
    let records = world.records(3).await;
    assert_eq!(story(&records[1]), ("allowed", "rule-allows", CloseReason::Done));
    assert_eq!(story(&records[2]), ("would-deny", "limit-requests", CloseReason::Done));
}

#[tokio::test]
async fn without_a_limit_all_of_it_passes() {
    let rules = plain(MORE).replace("limits: { requestsPerSecond: 1, burst: 2 }", "http: []");
    let rules = rules.replace("      http: []\n", "");
    let world = World::start(&rules, ZONE).await;
    let heads = plain_origin(world.origin(API).await);
    for _ in 0..5 {
        assert_eq!(status(&ask(&world).await), "200");
    }
    assert_eq!(heads.lock().unwrap().len(), 5);
}
