use std::time::Duration;

use tokio::time::Instant;

use crate::back_off::BACK_OFF;

use super::{
    super::{
        outbound,
        tests::{POLICY, ZONE},
        world::World,
    },
    *,
};

/// How long the loop waits each time that accept(2) fails so; the time is not really spent.
async fn waits_after(errors: &[i32]) -> Vec<Duration> {
    let world = World::start(POLICY, ZONE).await;
    tokio::time::pause();
    let mut waits = Vec::new();
    for errno in errors {
        let start = Instant::now();
        take_in(&world.worker, Err(io::Error::from_raw_os_error(*errno)), outbound::STORY).await;
        waits.push(start.elapsed());
    }
    waits
}

#[tokio::test]
async fn without_descriptors_or_memory_the_listener_is_left_alone_for_a_moment() {
    let waits = waits_after(&[libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM]).await;
    assert!(waits.iter().all(|wait| (BACK_OFF..BACK_OFF * 2).contains(wait)), "{waits:?}");
}

/// The control: errors that must not slow the others down.
#[tokio::test]
async fn an_error_of_one_connection_delays_nobody() {
    let errors = [libc::ECONNABORTED, libc::ENETDOWN, libc::EHOSTUNREACH, libc::EPERM, libc::EINTR];
    assert_eq!(waits_after(&errors).await, [Duration::ZERO; 5]);
}
