//! One name, one address: for as long as the proxy lives, and over its restarts.

use std::fs;

use super::*;

fn host(text: &str) -> HostName {
    HostName::parse(text).unwrap()
}

#[test]
fn a_name_keeps_its_addresses_and_they_lead_back_to_it() {
    let synthetic = SyntheticAddresses::default();
    let (v4, v6) = synthetic.assign(&host("db.shop.test")).unwrap();
    assert_eq!(synthetic.assign(&host("db.shop.test")), Some((v4, v6)));
    assert_ne!(synthetic.assign(&host("db2.shop.test")).unwrap().0, v4);
    for address in [IpAddr::V4(v4), IpAddr::V6(v6), IpAddr::V6(v4.to_ipv6_mapped())] {
        assert!(SyntheticAddresses::is_synthetic(address));
        assert_eq!(synthetic.name_of(address), Some(host("db.shop.test")));
    }
}

#[test]
fn an_address_that_was_never_given_out_has_no_name() {
    let synthetic = SyntheticAddresses::default();
    for address in
        ["198.18.0.1", "198.18.0.0", "198.19.255.255", "fd00:5de6::", "fd00:5de6::ffff:ffff:ffff:ffff"]
    {
        let address = address.parse().unwrap();
        assert!(SyntheticAddresses::is_synthetic(address), "{address}");
        assert_eq!(synthetic.name_of(address), None, "{address}");
    }
    for address in
        ["198.17.255.255", "198.20.0.0", "192.0.2.1", "0.0.0.0", "::", "fd00:5de6:0:1::1", "fd00:5de5::1"]
    {
        let address = address.parse().unwrap();
        assert!(!SyntheticAddresses::is_synthetic(address), "{address}");
        assert_eq!(synthetic.name_of(address), None, "{address}");
    }
}

#[test]
fn every_slot_leads_back_to_itself_and_never_looks_like_a_network() {
    for slot in (0..SLOTS).map(Slot) {
        assert!(!matches!(slot.v4().octets()[3], 0 | 255));
        assert_eq!(Slot::of(slot.v4().into()), Some(slot));
        assert_eq!(Slot::of(slot.v6().into()), Some(slot));
        assert!(SyntheticAddresses::is_synthetic(slot.v4().into()));
    }
}

#[test]
fn names_without_room_get_nothing_and_those_before_keep_theirs() {
    let synthetic = SyntheticAddresses::default();
    let addresses: HashMap<_, _> =
        (0..NAMES).map(|n| (synthetic.assign(&host(&format!("n{n}.test"))).unwrap(), n)).collect();
    assert_eq!(addresses.len(), NAMES, "no address twice");
    assert_eq!(synthetic.assign(&host("one-more.test")), None);
    for ((v4, _), n) in addresses {
        assert_eq!(synthetic.name_of(v4.into()), Some(host(&format!("n{n}.test"))));
    }
}

#[test]
fn without_a_file_a_name_mostly_gets_the_same_address_again() {
    let first = SyntheticAddresses::default().assign(&host("db.shop.test"));
    assert_eq!(SyntheticAddresses::default().assign(&host("db.shop.test")), first);
}

#[test]
fn a_restart_changes_nothing_even_where_names_collided() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("synthetic");
    // Asked in one order before the restart and in the other after it: among 10,000 names some collide.
    let names: Vec<_> = (0..10_000).map(|n| host(&format!("n{n}.test"))).collect();
    let before = SyntheticAddresses::load(&path);
    let given: Vec<_> = names.iter().map(|name| before.assign(name)).collect();
    let forgetful = SyntheticAddresses::default();
    let drawn: Vec<_> = names.iter().rev().map(|name| forgetful.assign(name)).collect();
    let same = drawn.iter().rev().eq(&given);
    assert!(!same, "the control: without the file the order matters");
    let after = SyntheticAddresses::load(&path);
    for (name, given) in names.iter().zip(&given).rev() {
        assert_eq!(after.assign(name), *given);
    }
}

#[test]
fn a_line_that_was_cut_off_costs_only_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("synthetic");
    fs::write(&path, "sidegate-synthetic/1\n5 db.shop.test\n6 db2.sh").unwrap();
    let synthetic = SyntheticAddresses::load(&path);
    assert_eq!(synthetic.name_of("198.18.0.6".parse().unwrap()), Some(host("db.shop.test")));
    assert_eq!(synthetic.name_of("198.18.0.7".parse().unwrap()), None);
    synthetic.assign(&host("new.test")).unwrap();
    assert!(SyntheticAddresses::load(&path).locked().slots.contains_key(&host("new.test")));
}

#[test]
fn a_file_that_makes_no_sense_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("synthetic");
    let faults = [
        ("empty", ""),
        ("other version", "sidegate-synthetic/9\n5 db.shop.test\n"),
        ("no number", "sidegate-synthetic/1\nx db.shop.test\n"),
        ("slot out of range", "sidegate-synthetic/1\n130048 db.shop.test\n"),
        ("no name", "sidegate-synthetic/1\n5 \n"),
        ("name not canonical", "sidegate-synthetic/1\n5 DB.shop.test\n"),
        ("address twice", "sidegate-synthetic/1\n5 a.test\n5 b.test\n"),
        ("name twice", "sidegate-synthetic/1\n5 a.test\n6 a.test\n"),
        ("zeros", "sidegate-synthetic/1\n\0\0\0\0\n"),
    ];
    for (fault, text) in faults {
        fs::write(&path, text).unwrap();
        let synthetic = SyntheticAddresses::load(&path);
        assert!(synthetic.locked().slots.is_empty(), "{fault}");
        let given = synthetic.assign(&host("db.shop.test"));
        assert_eq!(SyntheticAddresses::load(&path).assign(&host("db.shop.test")), given, "{fault}");
    }
    fs::write(&path, [0xff, 0xfe, b'\n']).unwrap();
    assert!(SyntheticAddresses::load(&path).locked().slots.is_empty(), "not text");
}

#[test]
fn a_file_that_can_not_be_written_costs_nothing_but_memory() {
    let dir = tempfile::tempdir().unwrap();
    let synthetic = SyntheticAddresses::load(&dir.path().join("absent").join("synthetic"));
    assert!(synthetic.assign(&host("db.shop.test")).is_some());
}
