//! Who may speak with whom.

use std::sync::Arc;

use sidegate_certs::{IdentityCell, TrustStore};

use super::world::{Domain, World, destination, id, setup};
use crate::mesh::{Mesh, OpenError, ServeError};

#[tokio::test]
async fn both_ends_prove_an_id_before_the_first_stream() {
    let world = World::new().await;
    let (_stream, _app) = world.pair().await;
    let asked = world.behind.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 1);
    assert_eq!((&asked[0].peer, asked[0].destination), (&id("client"), destination()));
    assert_eq!(asked[0].source.ip(), world.at.ip());
}

#[tokio::test]
async fn a_client_of_another_trust_domain_is_refused() {
    let mut world = World::new().await;
    let strange = Domain::new("example.net", world.clock.now());
    // It believes the server; the server knows nothing of it.
    let stranger = world.mesh_of(strange.identity("client", world.clock.now()));
    assert!(matches!(
        stranger.open(&id("server"), world.at, destination()).await,
        Err(OpenError::Handshake(_) | OpenError::Lost(_))
    ));
    assert!(matches!(world.served.recv().await, Some(Err(ServeError::Handshake(_)))));
    assert!(world.behind.asked.lock().unwrap().is_empty());

    // The very same client, once the server trusts its domain.
    world.trust.replace(TrustStore::new([world.domain.bundle(), strange.bundle()]));
    let (_stream, _app) = world.pair_of(&stranger, "server").await;
    assert_eq!(world.behind.asked.lock().unwrap()[0].peer.as_str(), "spiffe://example.net/client");
}

#[tokio::test]
async fn a_server_that_is_somebody_else_is_given_nothing() {
    let mut world = World::new().await;
    world.theirs.replace(world.domain.identity("impostor", world.clock.now()));
    assert!(matches!(world.open().await, Err(OpenError::Handshake(_))));
    assert!(matches!(world.served.recv().await, Some(Err(ServeError::Handshake(_)))));
    assert_eq!(world.mesh.connections(), 0);
    // As itself it is spoken to.
    let (_stream, _app) = world.pair_of(&world.mesh, "impostor").await;
}

#[tokio::test]
async fn an_expired_certificate_opens_nothing_on_either_side() {
    let mut world = World::new().await;
    world.clock.advance(3_601);
    assert!(matches!(world.open().await, Err(OpenError::NoIdentity)));
    assert_eq!(world.handshakes(), 0, "nothing was even dialled");

    world.ours.replace(world.domain.identity("client", world.clock.now()));
    assert!(matches!(world.open().await, Err(OpenError::Handshake(_))), "the server's has ended too");
    assert!(matches!(world.served.recv().await, Some(Err(ServeError::Handshake(_)))));

    world.theirs.replace(world.domain.identity("server", world.clock.now()));
    let (_stream, _app) = world.pair().await;
}

#[tokio::test]
async fn without_an_identity_nothing_is_dialled() {
    let world = World::new().await;
    let nobody = Mesh::new(setup(&Arc::new(IdentityCell::empty()), &world.trust, &world.clock));
    assert!(matches!(nobody.open(&id("server"), world.at, destination()).await, Err(OpenError::NoIdentity)));
    assert_eq!(world.handshakes(), 0);
}

#[tokio::test]
async fn connections_of_one_identity_never_carry_another() {
    let world = World::new().await;
    let (_first, _app) = world.pair().await;
    let other = world.mesh_of(world.domain.identity("other", world.clock.now()));
    let (_other, _its_app) = world.pair_of(&other, "server").await;
    // The same address, expecting another: the connection that is there is not used for it.
    assert!(matches!(
        world.mesh.open(&id("another"), world.at, destination()).await,
        Err(OpenError::Handshake(_))
    ));
    assert_eq!(world.handshakes(), 3);
    let peers: Vec<_> = world.behind.asked.lock().unwrap().iter().map(|asked| asked.peer.clone()).collect();
    assert_eq!(peers, [id("client"), id("other")]);
}
