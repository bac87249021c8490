//! The cache forgets in time, and forgets the unused first.

use super::*;

fn key(n: usize) -> Key {
    (HostName::parse(&format!("n{n}.test")).unwrap(), Family::V4)
}

fn address() -> Vec<IpAddr> {
    vec![IpAddr::from([203, 0, 113, 1])]
}

#[test]
fn an_entry_ages_and_expires() {
    let (mut cache, start) = (Cache::new(4), Instant::now());
    cache.keep(key(1), Ok(address()), 60, start);
    let later = |seconds| start + Duration::from_secs(seconds);
    assert_eq!(cache.find(&key(1), later(0)).unwrap().unwrap().ttl, 60);
    assert_eq!(cache.find(&key(1), later(59)).unwrap().unwrap().ttl, 1);
    assert_eq!(cache.find(&key(1), later(60)), None);
}

#[test]
fn families_are_apart_and_absence_is_kept_too() {
    let (mut cache, now) = (Cache::new(4), Instant::now());
    cache.keep(key(1), Err(ResolveError::NotFound), 60, now);
    assert_eq!(cache.find(&key(1), now), Some(Err(ResolveError::NotFound)));
    assert_eq!(cache.find(&(key(1).0, Family::V6), now), None);
}

#[test]
fn it_stays_bounded_and_drops_the_unused_first() {
    let (mut cache, now) = (Cache::new(3), Instant::now());
    for n in 0..3 {
        cache.keep(key(n), Ok(address()), 60, now);
    }
    assert!(cache.find(&key(0), now).is_some());
    for n in 3..100 {
        cache.keep(key(n), Ok(address()), 60, now);
        assert!(cache.find(&key(0), now).is_some(), "used each time, so kept");
        assert_eq!((cache.entries.len(), cache.hand.len()), (3, 3));
    }
    assert!(cache.find(&key(1), now).is_none());
}

#[test]
fn a_renewed_entry_takes_no_second_place() {
    let (mut cache, now) = (Cache::new(3), Instant::now());
    for _ in 0..10 {
        cache.keep(key(1), Ok(address()), 60, now);
    }
    assert_eq!((cache.entries.len(), cache.hand.len()), (1, 1));
}
