use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

/// A bucket that tells its pattern: of an allow rule, or of a deny rule.
fn bucket(number: u32, denies: bool) -> Bucket {
    Bucket { allows: number, denies: number + u32::from(!denies), end: number + 1 }
}

fn index(patterns: &BTreeSet<HostKey>, denies: impl Fn(u32) -> bool) -> HostIndex {
    let patterns: Vec<_> = (0..)
        .zip(patterns)
        .map(|(number, key)| {
            (key, bucket(number, denies(number)), (!denies(number)).then_some(RuleId(number)))
        })
        .collect();
    HostIndex::new(&patterns)
}

/// What the index says of a host: how specific each pattern is that matches, and which it is.
fn visited(index: &HostIndex, host: &str) -> Vec<(Rank, u32)> {
    let mut visited = Vec::new();
    index
        .visit(host, |rank, bucket| visited.extend((bucket.allows..bucket.end).map(|number| (rank, number))));
    visited
}

/// The same from the patterns themselves, one by one.
fn plainly(patterns: &BTreeSet<HostKey>, host: &HostName) -> Vec<(Rank, u32)> {
    let matching = (0..).zip(patterns).filter_map(|(number, key)| {
        let name = key.name.clone();
        let of_name = name.labels().count() as u8;
        let (pattern, rank) = match key.kind {
            HostKind::Exact => (HostPattern::Exact(name), Rank::EXACT_HOST),
            HostKind::OneLabel => (HostPattern::OneLabel(name), Rank::wildcard(of_name, true)),
            HostKind::AnyDepth => (HostPattern::AnyDepth(name), Rank::wildcard(of_name, false)),
        };
        pattern.matches(host).then_some((rank, number))
    });
    let mut matching: Vec<_> = matching.collect();
    matching.sort_by(|a, b| b.cmp(a));
    matching
}

/// The first allow rule for a name that shares at least two labels, and as many as possible.
fn near_plainly(
    patterns: &BTreeSet<HostKey>,
    host: &HostName,
    denies: impl Fn(u32) -> bool,
) -> Option<RuleId> {
    let shared = |key: &HostKey| {
        key.name.labels().rev().zip(host.labels().rev()).take_while(|(ours, theirs)| ours == theirs).count()
    };
    let allows = (0..).zip(patterns).filter(|(number, _)| !denies(*number));
    let near = allows.map(|(number, key)| (shared(key), std::cmp::Reverse(number)));
    near.filter(|(shared, _)| *shared >= 2 && *shared > public_labels(host.as_str()))
        .max()
        .map(|(_, std::cmp::Reverse(number))| RuleId(number))
}

/// Few labels, so that names meet; up to 127 of them, the most that a name has.
fn name() -> impl Strategy<Value = HostName> {
    let labels =
        prop_oneof![6 => vec(select(&["a", "b"][..]), 1..6), 1 => vec(select(&["a"][..]), 120..=127)];
    labels.prop_map(|labels| HostName::parse(&labels.join(".")).expect("at most 253 bytes"))
}

fn key() -> impl Strategy<Value = HostKey> {
    let kind = select(&[HostKind::Exact, HostKind::OneLabel, HostKind::AnyDepth][..]);
    (name(), kind).prop_map(|(name, kind)| HostKey { name, kind })
}

proptest! {
    #[test]
    fn the_index_finds_what_matches(
        patterns in proptest::collection::btree_set(key(), 0..24), hosts in vec(name(), 16), denying: u32,
    ) {
        let denies = |number: u32| denying >> (number % 32) & 1 == 1;
        let index = index(&patterns, denies);
        for host in hosts.iter().chain(patterns.iter().map(|key| &key.name)) {
            prop_assert_eq!(visited(&index, host.as_str()), plainly(&patterns, host), "{}", host);
            prop_assert_eq!(index.near(host.as_str()), near_plainly(&patterns, host, denies), "{}", host);
        }
    }
}

#[test]
fn the_deepest_name_is_found_by_each_kind() {
    let deepest = HostName::parse(&["a"; 127].join(".")).expect("253 bytes");
    let above = HostName::parse(&["a"; 126].join(".")).expect("251 bytes");
    let top = HostName::parse("a").expect("a label");
    let keys = [
        HostKey { name: deepest.clone(), kind: HostKind::Exact },
        HostKey { name: above, kind: HostKind::OneLabel },
        HostKey { name: top, kind: HostKind::AnyDepth },
    ];
    let patterns = BTreeSet::from(keys);
    let found = visited(&index(&patterns, |_| true), deepest.as_str());
    assert_eq!(found.len(), 3, "{found:?}");
    assert_eq!(found, plainly(&patterns, &deepest));
}

#[test]
fn names_of_strangers_under_one_suffix_are_not_near() {
    let name = |text: &str| HostName::parse(text).expect("a host name");
    let near = |known: &str, asked: &str| {
        let known = HostKey { name: name(known), kind: HostKind::Exact };
        index(&BTreeSet::from([known]), |_| false).near(asked).is_some()
    };
    for (known, asked, expected) in [
        ("api.example.com", "www.example.com", true),
        ("api.example.co.uk", "www.example.co.uk", true),
        ("good.co.uk", "evil.co.uk", false),
        ("good.github.io", "evil.github.io", false),
        ("a.good.github.io", "good.github.io", true),
        ("good.blob.core.windows.net", "evil.blob.core.windows.net", false),
        ("good.s3.amazonaws.com", "evil.s3.amazonaws.com", false),
        ("db.internal.example", "web.internal.example", true),
    ] {
        assert_eq!(near(known, asked), expected, "{known} for {asked}");
    }
}

/// Every slot says that the stranger's name, by its whole hash, leads to the one that is known.
#[test]
fn a_collision_of_hashes_finds_nothing() {
    let name = |text: &str| HostName::parse(text).expect("a host name");
    let known = HostKey { name: name("known.example"), kind: HostKind::Exact };
    let stranger = "stranger.example";
    let mut index = index(&BTreeSet::from([known]), |_| false);
    let (_, node) = *index.slots.iter().find(|(tag, _)| *tag == place("known.example").1).expect("its slot");
    index.exact.add(labels(stranger));
    index.slots.fill((place("known.example").1, node));
    assert_eq!(visited(&index, "known.example").len(), 1, "the table as it is now leads there");
    index.slots.fill((place(stranger).1, node));
    assert_eq!(visited(&index, stranger), []);
    assert_eq!(index.near("other.stranger.example"), None);
}

/// Names that begin at the same slot, as many as there are, are told apart.
#[test]
fn names_that_share_a_slot_are_all_found() {
    let names = (0..40_000).map(|number| format!("n{number}.example"));
    let crowded: Vec<String> = names.filter(|name| place(name).0 & 0xff == 0x7f).collect();
    let keys = crowded
        .iter()
        .map(|text| HostKey { name: HostName::parse(text).expect("a host name"), kind: HostKind::Exact });
    let patterns: BTreeSet<HostKey> = keys.take(100).collect();
    assert_eq!(patterns.len(), 100);
    let index = index(&patterns, |_| true);
    for key in &patterns {
        assert_eq!(visited(&index, key.name.as_str()), plainly(&patterns, &key.name));
    }
    for absent in crowded.iter().skip(100) {
        assert_eq!(visited(&index, absent), []);
    }
}
