mod place;

use std::{fs, time::Duration};

use metrics_exporter_prometheus::PrometheusBuilder;
use sidegate_certs::{UnixTime, bundle::Role};

use self::place::{Layout, Place, World, hour_later, now};
use super::*;

/// The value of a series in `text`.
fn sample(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

fn epoch(follower: &Follower) -> u64 {
    follower.identities().identity.current().map_or(0, |current| current.epoch)
}

fn faults(follower: &Follower) -> Vec<String> {
    let told = follower.identities().tell(now());
    let faults = told["faults"].as_array().expect("a list");
    faults.iter().map(|fault| fault["message"].as_str().expect("words").to_owned()).collect()
}

fn looked(place: &Place) -> Follower {
    let mut follower = Follower::new(place.files());
    follower.look(now());
    assert_eq!((epoch(&follower), faults(&follower)), (1, Vec::new()));
    follower
}

#[test]
fn a_renewed_pair_and_bundle_are_taken_over_in_every_layout() {
    for layout in [Layout::InPlace, Layout::RenamedOver, Layout::SwappedLink] {
        let (world, next) = (World::new(), World::new());
        let place = Place::new(layout, &world.pair("/a"), &world.bundle());
        let mut follower = looked(&place);
        let identities = follower.identities();
        follower.look(now());
        assert_eq!(epoch(&follower), 1, "{layout:?}: nothing changed");
        let pair = next.pair("/a");
        place.put(&pair, &next.bundle());
        follower.look(now());
        assert_eq!((epoch(&follower), faults(&follower)), (2, Vec::new()), "{layout:?}");
        let current = identities.identity.current().expect("an identity");
        assert_eq!(current.identity.svid(), &pair.svid, "{layout:?}");
        let trust = identities.trust.current();
        let judged = |world: &World| trust.verify(world.pair("/b").svid.chain(), Role::Client, now());
        assert!(judged(&next).is_ok() && judged(&world).is_err(), "{layout:?}: the new root alone counts");
    }
}

#[test]
fn a_touched_file_is_no_rotation() {
    let world = World::new();
    let pair = world.pair("/a");
    let place = Place::new(Layout::RenamedOver, &pair, &world.bundle());
    let mut follower = looked(&place);
    place.put(&pair, &world.bundle());
    follower.look(now());
    assert_eq!((epoch(&follower), faults(&follower)), (1, Vec::new()));
}

#[test]
fn a_pair_that_is_not_whole_leaves_what_was_served_and_is_told() {
    let world = World::new();
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        describe();
        let place = Place::new(Layout::InPlace, &world.pair("/a"), &world.bundle());
        let mut follower = looked(&place);
        let next = world.pair("/a");
        let errors = || sample(&metrics.render(), "sidegate_identity_errors_total{part=\"identity\"}");
        // The certificate of the new pair beside the key of the old one.
        fs::write(place.path("tls.crt"), next.svid.to_pem()).unwrap();
        follower.look(now());
        assert_eq!((epoch(&follower), errors()), (1, Some(0.0)), "it may be being written: not told yet");
        follower.look(now());
        assert_eq!((epoch(&follower), errors()), (1, Some(1.0)));
        assert_eq!(faults(&follower), ["the private key does not belong to the certificate"]);
        assert!(follower.identities().wanting(now()).is_empty(), "the old pair serves on");
        follower.look(now());
        assert_eq!(errors(), Some(1.0), "told once");
        // Half of its key.
        let key = next.key.to_pem();
        fs::write(place.path("tls.key"), &key[..key.len() / 2]).unwrap();
        for _ in 0..2 {
            follower.look(now());
        }
        assert_eq!((epoch(&follower), errors()), (1, Some(2.0)));
        assert!(faults(&follower)[0].contains("no private key in PEM"), "{:?}", faults(&follower));
        fs::write(place.path("tls.key"), key.as_bytes()).unwrap();
        follower.look(now());
        assert_eq!((epoch(&follower), faults(&follower)), (2, Vec::new()));
        let text = metrics.render();
        assert_eq!(sample(&text, ROTATIONS), Some(1.0));
        assert_eq!(sample(&text, EXPIRY), Some(next.svid.validity().not_after.as_secs() as f64));
    });
}

#[test]
fn what_is_over_or_has_not_begun_or_is_somebody_elses_is_refused() {
    let (world, other) = (World::new(), World::of("other.example"));
    let pair = world.pair("/a");
    let place = Place::new(Layout::RenamedOver, &pair, &world.bundle());
    let ends = pair.svid.validity().not_after;
    for (at, fine) in
        [(ends, true), (hour_later(ends), false), (UnixTime::since_unix_epoch(Duration::ZERO), false)]
    {
        let mut follower = Follower::new(place.files());
        follower.look(at);
        assert_eq!(epoch(&follower) == 1, fine, "{at:?}");
    }
    for (pair, workload, why) in [
        (other.pair("/a"), None, "another trust domain"),
        (world.pair("/b"), Some("spiffe://example.org/a"), "the workload is spiffe://example.org/a"),
        (world.pair("/a"), Some("spiffe://example.org/a"), ""),
    ] {
        place.put(&pair, &world.bundle());
        let workload = workload.map(|id| sidegate_policy::SpiffeId::parse(id).unwrap());
        let mut follower = Follower::new(IdentityFiles { workload, ..place.files() });
        follower.look(now());
        assert_eq!(epoch(&follower) == 0, !why.is_empty(), "{why}");
        assert!(faults(&follower).first().is_none_or(|fault| fault.contains(why)), "{:?}", faults(&follower));
    }
}

#[test]
fn readiness_takes_an_identity_and_a_bundle_and_ends_with_them() {
    let world = World::new();
    let pair = world.pair("/a");
    let place = Place::new(Layout::RenamedOver, &pair, &world.bundle());
    for name in ["tls.key", "ca.crt"] {
        fs::rename(place.path(name), place.path("aside")).unwrap();
        let mut follower = Follower::new(place.files());
        assert_eq!(follower.identities().wanting(now()).len(), 2, "nothing was read");
        follower.look(now());
        assert_eq!(faults(&follower), ["it is not there"]);
        let wanting = follower.identities().wanting(now());
        assert!(
            wanting.len() == 1 && wanting[0].contains(if name == "ca.crt" { "bundle" } else { "identity" })
        );
        fs::rename(place.path("aside"), place.path(name)).unwrap();
        follower.look(now());
        assert_eq!((follower.identities().wanting(now()), faults(&follower)), (vec![], vec![]));
        let over = hour_later(pair.svid.validity().not_after);
        assert_eq!(follower.identities().wanting(over).len(), 1, "an expired identity is none");
    }
}

#[test]
fn a_list_revokes_and_a_bad_list_leaves_the_last_good_trust() {
    let world = World::new();
    let place = Place::new(Layout::RenamedOver, &world.pair("/a"), &world.bundle());
    let (victim, fine) = (world.pair("/victim"), world.pair("/fine"));
    fs::write(place.path("lists"), world.list(&[])).unwrap();
    let mut follower =
        Follower::new(IdentityFiles { revocations: vec![place.path("lists")], ..place.files() });
    follower.look(now());
    let believed = |follower: &Follower, pair: &place::Pair| {
        follower.identities().trust.current().verify(pair.svid.chain(), Role::Client, now()).is_ok()
    };
    assert!(believed(&follower, &victim) && believed(&follower, &fine), "{:?}", faults(&follower));
    fs::write(place.path("lists"), world.list(&[&victim])).unwrap();
    follower.look(now());
    assert!(!believed(&follower, &victim) && believed(&follower, &fine));
    for bad in [World::new().list(&[]), "no list at all".to_owned(), String::new()] {
        fs::write(place.path("lists"), bad).unwrap();
        for _ in 0..2 {
            follower.look(now());
        }
        assert_eq!(faults(&follower).len(), 1);
        assert!(!believed(&follower, &victim) && believed(&follower, &fine), "what was revoked stays so");
    }
    let mut fresh = Follower::new(IdentityFiles { revocations: vec![place.path("lists")], ..place.files() });
    fresh.look(now());
    assert!(!believed(&fresh, &fine), "without its lists a bundle does not count");
}

#[test]
fn what_is_shown_holds_no_key() {
    let world = World::new();
    let pair = world.pair("/a");
    let place = Place::new(Layout::RenamedOver, &pair, &world.bundle());
    fs::write(place.path("ca.crt"), world.bundle().to_jwks()).unwrap();
    let follower = looked(&place);
    let told = follower.identities().tell(now());
    assert_eq!(told["identity"]["id"], "spiffe://example.org/a");
    assert_eq!((&told["identity"]["epoch"], &told["identity"]["usable"]), (&1.into(), &true.into()));
    assert_eq!(told["identity"]["believedByOwnBundle"], true);
    assert_eq!(told["trust"]["trustDomain"], "example.org");
    assert_eq!(told["trust"]["roots"].as_array().map(Vec::len), Some(1));
    let key = pair.key.to_pem();
    let secret = key.lines().nth(1).expect("a line of the key");
    for text in [told.to_string(), format!("{follower:?}"), format!("{:?}", follower.identities())] {
        assert!(!text.contains(secret) && !text.contains("PRIVATE KEY"), "{text}");
    }
    // Put where the certificate belongs, it shows in no error either.
    fs::write(place.path("tls.crt"), key.as_bytes()).unwrap();
    let faults = check(&place.files(), now());
    assert!(!faults.is_empty() && !format!("{faults:?}").contains(secret), "{faults:?}");
}

#[test]
fn checking_tells_every_fault_with_its_file() {
    let world = World::new();
    let place = Place::new(Layout::RenamedOver, &world.pair("/a"), &world.bundle());
    assert_eq!(check(&place.files(), now()), []);
    for name in ["tls.crt", "tls.key", "ca.crt"] {
        fs::write(place.path(name), "nothing").unwrap();
    }
    let faults = check(&place.files(), now());
    let told: Vec<String> = faults.iter().map(|fault| fault.diagnostic().to_string()).collect();
    assert_eq!(told.len(), 3);
    for (told, name) in told.iter().zip(["tls.crt", "tls.key", "ca.crt"]) {
        assert!(told.starts_with(&format!("{}:1:1: ", place.path(name).display())), "{told}");
    }
}

/// Reading each of these to its end would never return, or take all memory.
#[test]
fn what_has_no_end_is_refused_and_not_waited_for() {
    let world = World::new();
    let place = Place::new(Layout::RenamedOver, &world.pair("/a"), &world.bundle());
    let (fifo, endless) = (place.path("fifo"), place.path("endless"));
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    std::os::unix::fs::symlink("/dev/zero", &endless).unwrap();
    let large = place.path("large");
    fs::File::create(&large).unwrap().set_len(2 << 20).unwrap();
    for (key, why) in [(fifo, "regular"), (endless, "regular"), (large, "larger")] {
        let faults = check(&IdentityFiles { key, ..place.files() }, now());
        assert!(matches!(faults.as_slice(), [one] if one.ground.to_string().contains(why)), "{faults:?}");
    }
}

mod attempts {
    use super::*;
    use crate::{files::Attempts, identity::fault::Ground};

    /// What is read while it is replaced may be half of each, also where both halves fit by chance.
    #[test]
    fn what_changes_while_it_is_read_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "one").unwrap();
        let mut attempts = Attempts::new(vec![path.clone()], Fault::moving);
        let far = hour_later(now());
        assert_eq!(attempts.look(far, || Ok(1)), Some(Ok(1)));
        assert_eq!(attempts.look(far, || Ok(2)), None, "nothing changed, nothing is read");
        fs::write(&path, "second").unwrap();
        let swap = || {
            fs::write(&path, "the third").unwrap();
            Ok(3)
        };
        assert_eq!(attempts.look(far, swap), None);
        assert_eq!(attempts.look(far, || Ok(4)), Some(Ok(4)));
        fs::remove_file(&path).unwrap();
        let mut size = 0;
        let told = (0..2).find_map(|_| {
            attempts.look(far, || {
                size += 1;
                fs::write(&path, "x".repeat(size)).unwrap();
                Ok(5)
            })
        });
        assert!(
            matches!(told, Some(Err(fault)) if fault.ground == Ground::Moving),
            "a restless file is told of"
        );
    }

    #[test]
    fn a_fault_is_tried_again_without_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "one").unwrap();
        let mut attempts = Attempts::new(vec![path.clone()], Fault::moving);
        let far = hour_later(now());
        let fault = || Fault::new(&path, Ground::NotYet(far));
        assert_eq!(attempts.look(far, || Err::<(), _>(fault())), Some(Err(fault())));
        let mut tried = 0;
        for _ in 0..100 {
            let look = attempts.look(far, || {
                tried += 1;
                Err::<(), _>(fault())
            });
            assert_eq!(look, None, "it was told");
        }
        assert!((2..20).contains(&tried), "{tried} times");
        let mended = (0..100).find_map(|_| attempts.look(far, || Ok(())));
        assert_eq!(mended, Some(Ok(())));
    }
}
