//! Who is dismissed, and who is verified again.

use std::sync::Arc;

use rustls::time_provider::TimeProvider;
use sidegate_certs::{Identity, IdentityCell, TrustStore, UnixTime, bundle::Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::world::{Clock, Domain, World, id};
use crate::mesh::{
    Membership, OpenError, Roster, Vigil,
    roster::{Arrival, Entry, Since},
};

const HERE: [u8; 4] = [10, 0, 0, 1];
const THERE: [u8; 4] = [10, 0, 0, 2];

struct Book {
    clock: Arc<Clock>,
    domain: Domain,
    roster: Arc<Roster>,
}

impl Book {
    fn new() -> Self {
        let clock = Arc::new(Clock::new());
        let domain = Domain::new("example.org", clock.now());
        Book { clock, domain, roster: Arc::new(Roster::new()) }
    }

    fn arrival(&self, name: &str) -> Arrival {
        self.arrival_of(&self.domain.identity(name, self.clock.now()))
    }

    fn arrival_of(&self, identity: &Identity) -> Arrival {
        let peer = identity.svid().clone();
        Arrival { peer, role: Role::Client, at: HERE.into(), ours_end: identity.validity().not_after }
    }

    /// Whether it came in; it is not asked again.
    fn enter(&self, name: &str, since: Since) -> Option<Entry> {
        self.roster.enter(self.arrival(name), since, |_| unreachable!("nobody was to be verified again"))
    }
}

#[tokio::test]
async fn a_peer_is_dismissed_and_others_stay() {
    let book = Book::new();
    let since = book.roster.now();
    let (mut first, second) = (book.enter("a", since).unwrap(), book.enter("b", since).unwrap());
    assert_eq!(book.roster.close_peer(&id("a")), 1);
    first.dismissed().await;
    assert_eq!((book.roster.len(), book.roster.close_peer(&id("a"))), (1, 0));
    drop((first, second));
    assert!(book.roster.is_empty());
}

#[test]
fn who_is_dismissed_during_the_handshake_does_not_come_in() {
    let book = Book::new();
    let since = book.roster.now();
    book.roster.close_peer(&id("a"));
    assert!(book.enter("a", since).is_none());
    assert!(book.enter("b", since).is_some(), "somebody else");
    assert!(book.enter("a", book.roster.now()).is_some(), "a handshake that began after");
}

#[test]
fn what_is_forgotten_counts_as_dismissed() {
    let book = Book::new();
    let since = book.roster.now();
    book.roster.close_peer(&id("a"));
    let later = book.roster.now();
    for _ in 0..1024 {
        book.roster.close_peer(&id("b"));
    }
    assert!(book.enter("a", since).is_none());
    assert!(book.enter("a", later).is_some());
}

#[tokio::test]
async fn a_review_ends_those_who_no_longer_hold_and_nobody_else() {
    let book = Book::new();
    let (victim, other) = (book.domain.identity("a", book.clock.now()), book.arrival("b"));
    // Two identities of one name: one certificate is revoked, the other is not.
    let (renewed, since) = (book.arrival("a"), book.roster.now());
    let enter = |arrival| book.roster.enter(arrival, since, |_| unreachable!()).unwrap();
    let (mut gone, same, kept, stays) =
        (enter(book.arrival_of(&victim)), enter(book.arrival_of(&victim)), enter(renewed), enter(other));
    let trust = TrustStore::new([book.domain.bundle()]);
    assert_eq!(book.roster.review(&trust, book.clock.now()), 0);
    let trust = trust.with_revocations(book.domain.revoked(&[&victim], book.clock.now()));
    assert_eq!(book.roster.review(&trust, book.clock.now()), 2);
    gone.dismissed().await;
    assert_eq!(book.roster.len(), 2);
    drop((same, kept, stays));
    assert_eq!(book.roster.review(&TrustStore::empty(), book.clock.now()), 0);
}

#[test]
fn a_handshake_that_a_review_overtook_is_verified_again() {
    let book = Book::new();
    let since = book.roster.now();
    book.roster.review(&TrustStore::new([book.domain.bundle()]), book.clock.now());
    assert!(book.roster.enter(book.arrival("a"), since, |_| false).is_none());
    assert!(book.roster.is_empty());
    assert!(book.roster.enter(book.arrival("a"), since, |peer| *peer.id() == id("a")).is_some());
    assert!(book.enter("a", book.roster.now()).is_some(), "one that began after is not");
}

#[tokio::test]
async fn a_certificate_that_ends_ends_its_connection() {
    let book = Book::new();
    let since = book.roster.now();
    let trust = TrustStore::new([book.domain.bundle()]);
    let mut first = book.enter("a", since).unwrap();
    book.clock.advance(1_800);
    // The peer's lives on; ours that it was shown does not.
    let ours_end = book.domain.identity("x", UnixTime::since_unix_epoch(std::time::Duration::ZERO));
    let short = Arrival { ours_end: ours_end.validity().not_after, ..book.arrival("b") };
    let mut ours = book.roster.enter(short, since, |_| true).unwrap();
    let kept = book.enter("c", since).unwrap();
    assert_eq!(book.roster.expire(&trust, book.clock.now(), false), 1);
    ours.dismissed().await;
    book.clock.advance(1_801);
    assert_eq!(book.roster.expire(&trust, book.clock.now(), false), 1);
    first.dismissed().await;
    assert_eq!(book.roster.len(), 1);
    drop(kept);
}

#[tokio::test]
async fn who_has_proven_himself_again_keeps_what_began_before() {
    let book = Book::new();
    let since = book.roster.now();
    let trust = TrustStore::new([book.domain.bundle()]);
    let enter = |arrival: Arrival| book.roster.enter(arrival, since, |_| true).unwrap();
    let (kept, mut elsewhere) =
        (enter(book.arrival("a")), enter(Arrival { at: THERE.into(), ..book.arrival("a") }));
    let mut revoked = enter(book.arrival("b"));
    book.clock.advance(3_000);
    let (victim, _renewed) = (book.domain.identity("b", book.clock.now()), enter(book.arrival("a")));
    let mut of_victim = enter(book.arrival_of(&victim));
    book.clock.advance(601);
    // Those of before have ended: one workload has proven itself again at its address, at the other nobody has.
    assert_eq!(book.roster.expire(&trust, book.clock.now(), true), 1);
    elsewhere.dismissed().await;
    assert_eq!(book.roster.len(), 4);
    let trust = trust.with_revocations(book.domain.revoked(&[&victim], book.clock.now()));
    assert_eq!(book.roster.review(&trust, book.clock.now()), 2, "the proof itself was revoked");
    revoked.dismissed().await;
    of_victim.dismissed().await;
    assert_eq!(book.roster.len(), 2);
    drop(kept);
}

fn membership(world: &World, roster: &Arc<Roster>, own: &Arc<IdentityCell>) -> Membership {
    let mut identities = crate::identity::Identities::empty(id("x").trust_domain());
    identities.identity = Arc::clone(own);
    identities.trust = Arc::clone(&world.trust);
    let time: Arc<dyn TimeProvider> = Arc::<Clock>::clone(&world.clock);
    Membership { roster: Arc::clone(roster), ..Membership::at(Arc::new(identities), time) }
}

/// As the process does: whoever follows the files replaces trust, the vigil sees it.
#[tokio::test]
async fn a_revoked_peer_loses_its_streams_with_the_next_look() {
    for at_client in [true, false] {
        let world = World::new().await;
        let (roster, own, victim) = match at_client {
            true => (world.mesh.roster(), &world.ours, &world.theirs),
            false => (&world.server_roster, &world.theirs, &world.ours),
        };
        let mut vigil = Vigil::new(membership(&world, roster, own));
        let (mut stream, mut app) = world.pair().await;
        vigil.look();
        stream.write_all(b"x").await.unwrap();
        let mut got = [0; 1];
        app.read_exact(&mut got).await.unwrap();
        let victim = victim.current().unwrap().identity.clone();
        let revoked = world.domain.revoked(&[&victim], world.clock.now());
        world.trust.replace(TrustStore::new([world.domain.bundle()]).with_revocations(revoked));
        vigil.look();
        assert!(stream.read(&mut got).await.is_err());
        assert!(app.read(&mut got).await.is_err());
        assert!(world.open().await.is_err(), "nor does it come back");
    }
}

#[tokio::test]
async fn a_retired_root_ends_whom_it_vouched_for() {
    let world = World::new().await;
    let roster = Arc::clone(world.mesh.roster());
    let mut vigil = Vigil::new(membership(&world, &roster, &world.ours));
    let (mut stream, _app) = world.pair().await;
    vigil.look();
    assert_eq!(roster.len(), 1);
    let next = Domain::new("example.org", world.clock.now());
    world.trust.replace(TrustStore::new([next.bundle()]));
    vigil.look();
    assert!(stream.read(&mut [0; 1]).await.is_err());
}

#[tokio::test]
async fn our_own_revocation_opens_nothing_more_and_leaves_what_is_open() {
    let world = World::new().await;
    let roster = Arc::clone(world.mesh.roster());
    let mut vigil = Vigil::new(membership(&world, &roster, &world.ours));
    let (mut stream, mut app) = world.pair().await;
    let ours = world.ours.current().unwrap().identity.clone();
    let revoked = || world.domain.revoked(&[&ours], world.clock.now());
    world.trust.replace(TrustStore::new([world.domain.bundle()]).with_revocations(revoked()));
    vigil.look();
    assert!(matches!(world.open().await, Err(OpenError::NoIdentity)));
    stream.write_all(b"x").await.unwrap();
    let mut got = [0; 1];
    app.read_exact(&mut got).await.unwrap();
    // A new certificate mends it.
    world.ours.replace(world.domain.identity("client", world.clock.now()));
    vigil.look();
    let (_stream, _app) = world.pair().await;
}
