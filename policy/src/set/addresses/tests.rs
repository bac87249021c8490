use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use proptest::{
    collection::{btree_map, vec},
    prelude::*,
};

use super::*;

/// Whether allow and deny rules stand at a prefix, as a prefix and as a group.
type Stands = [[bool; 2]; 2];

/// Numbers near both ends of a family and near one address in it, else anywhere.
fn v4() -> impl Strategy<Value = Ipv4Addr> {
    let bits = prop_oneof![0..4_u32, (u32::MAX - 4)..=u32::MAX, 0x0a01_0200..0x0a01_0208_u32, any::<u32>()];
    bits.prop_map(Ipv4Addr::from_bits)
}

fn v6() -> impl Strategy<Value = Ipv6Addr> {
    let near = 0x2600_u128 << 112;
    let mapped = 0xffff_0a01_0200_u128;
    let bits = prop_oneof![
        0..4_u128,
        (u128::MAX - 4)..=u128::MAX,
        near..near + 8,
        mapped..mapped + 8,
        any::<u128>(),
    ];
    bits.prop_map(Ipv6Addr::from_bits)
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![v4().prop_map(IpAddr::V4), v6().prop_map(IpAddr::V6)]
}

fn net() -> impl Strategy<Value = IpNet> {
    let short_or_long = |longest: u8| prop_oneof![0..=2_u8, (longest - 3)..=longest, 0..=longest];
    prop_oneof![
        (v4(), short_or_long(32)).prop_map(|(v4, length)| Ipv4Net::new_assert(v4, length).trunc().into()),
        (v6(), short_or_long(128)).prop_map(|(v6, length)| Ipv6Net::new_assert(v6, length).trunc().into()),
    ]
}

/// Two entries a prefix and kind, each there or not: an allow, then a deny.
fn bucket(number: u32, [allows, denies]: [bool; 2]) -> Bucket {
    let start = number * 2;
    let between = start + u32::from(allows);
    Bucket { allows: start, denies: between, end: between + u32::from(denies) }
}

fn index(nets: &BTreeMap<IpNet, Stands>) -> AddressIndex {
    let buckets = (0..).step_by(2).zip(nets).map(|(number, (net, [group, prefix]))| {
        (*net, [bucket(number, *group), bucket(number + 1, *prefix)])
    });
    AddressIndex::new(&buckets.collect())
}

/// What each prefix that holds the address has to say, in the order of visits.
fn visited(index: &AddressIndex, address: IpAddr, floor: Rank) -> Vec<(Rank, bool, bool)> {
    let mut visited = Vec::new();
    index.visit(address, floor, |rank, bucket| {
        visited.push((rank, bucket.has_allows(), bucket.has_denies()));
        floor
    });
    visited
}

fn plainly(nets: &BTreeMap<IpNet, Stands>, address: IpAddr) -> Vec<(Rank, bool, bool)> {
    let holding = nets.iter().rev().filter(|(net, _)| net.contains(&address));
    let spots = holding.flat_map(|(net, [group, prefix])| {
        let length = net.prefix_len();
        [(Rank::group(length), group[0], group[1]), (Rank::prefix(length), prefix[0], prefix[1])]
    });
    spots.filter(|(_, allows, denies)| *allows || *denies).collect()
}

proptest! {
    #[test]
    fn every_prefix_that_holds_an_address_is_visited(
        nets in btree_map(net(), any::<Stands>(), 0..24), asked in vec(address(), 24),
    ) {
        let index = index(&nets);
        let ends = nets.keys().flat_map(|net| [net.network(), net.broadcast()]);
        for address in asked.into_iter().chain(ends) {
            let all = plainly(&nets, address);
            prop_assert_eq!(&visited(&index, address, Rank::NONE), &all, "{}", address);
            // Below the floor allow rules may be passed over, deny rules never.
            for floor in [Rank::prefix(24), Rank::group(0), Rank::group(128), Rank::EXACT_HOST, Rank::ALL] {
                let seen = visited(&index, address, floor);
                let owed = all.iter().filter(|(rank, allows, denies)| *denies || *allows && *rank >= floor);
                for spot in owed {
                    prop_assert!(seen.contains(spot), "{} of {} at {:?}", address, nets.len(), spot);
                }
                prop_assert!(seen.iter().all(|spot| all.contains(spot)));
            }
        }
    }
}

#[test]
fn prefixes_reach_to_the_ends_of_their_family_and_no_farther() {
    let longest = [
        "0.0.0.0/0",
        "0.0.0.0/32",
        "255.255.255.255/32",
        "255.255.255.254/31",
        "::/0",
        "::/128",
        "8000::/1",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128",
    ];
    let nets = longest.map(|net| (net.parse().expect("a prefix"), [[false; 2], [true, false]]));
    let index = index(&nets.into());
    let lengths = |address: &str| -> Vec<Rank> {
        let address = address.parse().expect("an address");
        visited(&index, address, Rank::NONE).into_iter().map(|(rank, ..)| rank).collect()
    };
    for (address, expected) in [
        ("0.0.0.0", &[32, 0][..]),
        ("0.0.0.1", &[0]),
        ("255.255.255.253", &[0]),
        ("255.255.255.254", &[31, 0]),
        ("255.255.255.255", &[32, 31, 0]),
        ("::", &[128, 0]),
        ("::1", &[0]),
        ("::ffff:255.255.255.255", &[0]),
        ("7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", &[0]),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", &[1, 0]),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", &[128, 1, 0]),
    ] {
        let expected: Vec<Rank> = expected.iter().map(|length| Rank::prefix(*length)).collect();
        assert_eq!(lengths(address), expected, "{address}");
    }
}
