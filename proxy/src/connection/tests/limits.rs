use super::*;
use crate::settings::Settings;

async fn shed(settings: Settings, reason: &str) {
    let world = World::with_settings(POLICY, ZONE, settings).await;
    let origin = world.origin(DB).await;
    let (mut client, mut server) = joined(&world, &origin).await;
    let mut second = world.client(DB).await;
    assert_eq!(read_all(&mut second).await, None);
    assert_eq!(story(&world.record().await), ("denied", reason, CloseReason::Denied));
    exchange(&mut client, &mut server, b"the first lives on").await;
    drop((client, server));
    world.records(2).await;
    let (mut client, mut server) = joined(&world, &origin).await;
    exchange(&mut client, &mut server, b"and there is room again").await;
}

#[tokio::test]
async fn too_many_connections_are_shed() {
    shed(Settings { connections: 1, ..Settings::default() }, "limit-connections").await;
}

#[tokio::test]
async fn too_many_of_one_source_are_shed() {
    shed(Settings { connections_per_source: 1, ..Settings::default() }, "limit-source").await;
}

#[tokio::test]
async fn the_reserve_of_descriptors_is_kept() {
    let settings = Settings { descriptor_reserve: usize::MAX / 2, ..Settings::default() };
    let world = World::with_settings(POLICY, ZONE, settings).await;
    let mut client = world.client(DB).await;
    assert_eq!(read_all(&mut client).await, None);
    assert_eq!(story(&world.record().await), ("denied", "limit-descriptors", CloseReason::Denied));
}
