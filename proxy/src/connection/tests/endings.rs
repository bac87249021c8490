use std::time::Duration;

use super::*;
use crate::{
    addrs::ClientAddr,
    connection::{record::Record, world::PANIC},
    settings::Settings,
};

#[tokio::test]
async fn a_refused_dial_names_the_far_end() {
    let world = World::start(POLICY, ZONE).await;
    drop(world.origin(DB).await);
    let mut client = world.client(DB).await;
    assert_eq!(read_all(&mut client).await, None);
    let record = world.record().await;
    assert_eq!(story(&record), ("allowed", "dial-refused", CloseReason::ConnectFailed));
    assert_eq!(record.rule.as_deref(), Some("db"));
    assert!(record.explanation.unwrap().contains("refused"));
}

#[tokio::test(start_paused = true)]
async fn a_silent_destination_is_given_up() {
    let world = World::start(POLICY, ZONE).await;
    let mut client = world.client(DB).await;
    assert_eq!(read_all(&mut client).await, None);
    assert_eq!(story(&world.record().await), ("allowed", "dial-timeout", CloseReason::ConnectFailed));
}

#[tokio::test]
async fn a_reset_of_one_side_resets_the_other() {
    let world = World::start(POLICY, ZONE).await;
    let origin = world.origin(DB).await;
    let (mut client, mut server) = joined(&world, &origin).await;
    exchange(&mut client, &mut server, b"x").await;
    client.set_zero_linger().unwrap();
    drop(client);
    assert_eq!(read_all(&mut server).await, None);
    assert_eq!(story(&world.record().await), ("allowed", "rule-allows", CloseReason::ClientReset));

    let (mut client, mut server) = joined(&world, &origin).await;
    exchange(&mut client, &mut server, b"x").await;
    server.set_zero_linger().unwrap();
    drop(server);
    assert_eq!(read_all(&mut client).await, None);
    assert_eq!(story(&world.records(2).await[1]), ("allowed", "rule-allows", CloseReason::UpstreamReset));
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let settings = Settings { idle_timeout: Duration::from_secs(60), ..Settings::default() };
    let world = World::with_settings(POLICY, ZONE, settings).await;
    let origin = world.origin(DB).await;
    let (mut client, mut server) = joined(&world, &origin).await;
    for _ in 0..10 {
        exchange(&mut client, &mut server, b"busy").await;
        tokio::time::advance(Duration::from_secs(30)).await;
    }
    let began = tokio::time::Instant::now();
    assert_eq!(read_all(&mut client).await, None);
    let waited = began.elapsed();
    assert!(waited > Duration::from_secs(20) && waited < Duration::from_secs(75), "{waited:?}");
    assert_eq!(story(&world.record().await), ("allowed", "rule-allows", CloseReason::IdleTimeout));
}

#[tokio::test]
async fn a_panic_in_a_stage_leaves_its_record_and_the_proxy_alive() {
    let world = World::start(POLICY, ZONE).await;
    let mut client = world.client_to(Some(PANIC)).await;
    assert!(client.read(&mut [0]).await.is_ok_and(|count| count == 0));
    assert_eq!(story(&world.record().await), ("denied", "internal", CloseReason::Internal));
    let origin = world.origin(DB).await;
    let (mut client, mut server) = joined(&world, &origin).await;
    exchange(&mut client, &mut server, b"still here").await;
}

#[tokio::test]
async fn a_cancelled_task_leaves_its_record() {
    let world = World::start(POLICY, ZONE).await;
    let record = Record::open(
        &world.worker,
        ClientAddr::new("10.0.0.9:9".parse().unwrap()),
        sidegate_policy::Direction::Egress,
    );
    let task = tokio::spawn(async move {
        let _record = record;
        std::future::pending::<()>().await;
    });
    tokio::task::yield_now().await;
    task.abort();
    assert_eq!(story(&world.record().await), ("denied", "internal", CloseReason::Internal));
}

#[tokio::test(start_paused = true)]
async fn a_drain_closes_what_is_left_in_every_stage() {
    let world = World::start(POLICY, ZONE).await;
    let origin = world.origin(DB).await;
    let (mut relayed, _server) = joined(&world, &origin).await;
    let mut dialling = world.client("10.9.9.9:5432").await;
    let mut observed = world.client("93.184.216.34:443").await;
    while world.worker.live.len() < 3 || world.net.dialled().len() < 2 {
        tokio::task::yield_now().await;
    }
    world.worker.live.close_all(CloseReason::Drained);
    for client in [&mut relayed, &mut dialling, &mut observed] {
        read_all(client).await;
    }
    let records = world.records(3).await;
    let mut stories: Vec<_> = records.iter().map(story).collect();
    stories.sort_by_key(|story| story.1.to_owned());
    assert_eq!(
        stories,
        [
            ("denied", "draining", CloseReason::Drained),
            ("allowed", "rule-allows", CloseReason::Drained),
            ("allowed", "rule-allows", CloseReason::Drained),
        ]
    );
}

#[tokio::test]
async fn a_failure_of_this_host_is_not_blamed_on_the_far_end() {
    for (errno, outcome) in [
        (libc::EADDRNOTAVAIL, ("denied", "limit-ports")),
        (libc::EMFILE, ("denied", "limit-descriptors")),
        (libc::ENFILE, ("denied", "limit-descriptors")),
        (libc::ENOBUFS, ("denied", "limit-memory")),
        (libc::ENOMEM, ("denied", "limit-memory")),
        (libc::EPERM, ("denied", "dial-forbidden")),
        (libc::EACCES, ("denied", "dial-forbidden")),
        (libc::ECONNREFUSED, ("allowed", "dial-refused")),
        (libc::ETIMEDOUT, ("allowed", "dial-timeout")),
        (libc::EHOSTUNREACH, ("allowed", "dial-unreachable")),
        (libc::ENETUNREACH, ("allowed", "dial-unreachable")),
    ] {
        let world = World::start(POLICY, ZONE).await;
        world.net.fail(errno);
        let mut client = world.client(DB).await;
        assert_eq!(read_all(&mut client).await, None);
        let record = world.record().await;
        assert_eq!(story(&record), (outcome.0, outcome.1, CloseReason::ConnectFailed));
    }
}
