use super::*;

/// The policy without one of its rules.
fn without(rule: &str) -> String {
    let start = POLICY.find(&format!("    - name: {rule}")).unwrap();
    let end = POLICY[start + 1..].find("    - name:").map_or(POLICY.len(), |next| start + 1 + next);
    format!("{}{}", &POLICY[..start], &POLICY[end..])
}

#[tokio::test]
async fn what_is_no_longer_allowed_is_closed_and_the_rest_is_untouched() {
    let world = World::start(POLICY, ZONE).await;
    let origin = world.origin(DB).await;
    let (mut client, mut server) = joined(&world, &origin).await;
    exchange(&mut client, &mut server, b"before").await;
    world.worker.gate.policies.replace(policies(&without("site"), 2));
    exchange(&mut client, &mut server, b"between").await;
    world.worker.gate.policies.replace(policies(&without("db"), 3));
    assert_eq!(read_all(&mut client).await, None);
    assert_eq!(read_all(&mut server).await, None);
    let record = world.record().await;
    assert_eq!(story(&record), ("denied", "no-rule", CloseReason::PolicyChanged));
    assert_eq!((record.generation, record.bytes_sent), (3, 13));
}

#[tokio::test]
async fn the_record_carries_the_generation_that_judged_last() {
    let world = World::start(POLICY, ZONE).await;
    let origin = world.origin(DB).await;
    let (mut client, mut server) = joined(&world, &origin).await;
    world.worker.gate.policies.replace(policies(&POLICY.replace("name: db", "name: base"), 2));
    exchange(&mut client, &mut server, b"x").await;
    drop((client, server));
    let record = world.record().await;
    assert_eq!((record.generation, record.rule.as_deref()), (2, Some("base")));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_being_dialled_is_judged_again() {
    let world = World::start(POLICY, ZONE).await;
    let mut client = world.client(DB).await;
    while world.net.dialled().is_empty() {
        tokio::task::yield_now().await;
    }
    world.worker.gate.policies.replace(policies(&without("db"), 2));
    read_all(&mut client).await;
    assert_eq!(story(&world.record().await), ("denied", "no-rule", CloseReason::PolicyChanged));
}
