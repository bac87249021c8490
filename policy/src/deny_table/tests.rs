use super::*;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is no address"))
}

type Case = (&'static str, Option<Reason>, Option<Reason>, Option<Reason>);

/// `None` in the second column: the table has nothing against it as an original destination.
/// Third column: as an answer of a name; fourth: as an answer where `private: true`.
#[rustfmt::skip]
const CASES: &[Case] = &[
    ("0.0.0.0", Some(Unspecified), Some(Unspecified), Some(Unspecified)),
    ("0.255.255.255", Some(Unspecified), Some(Unspecified), Some(Unspecified)),
    ("1.0.0.0", None, None, None),
    ("9.255.255.255", None, None, None),
    ("10.0.0.0", None, Some(Private), None),
    ("10.255.255.255", None, Some(Private), None),
    ("11.0.0.0", None, None, None),
    ("100.63.255.255", None, None, None),
    ("100.64.0.0", None, Some(Private), None),
    ("100.100.100.199", None, Some(Private), None),
    ("100.100.100.200", Some(Metadata), Some(Metadata), Some(Metadata)),
    ("100.100.100.201", None, Some(Private), None),
    ("100.127.255.255", None, Some(Private), None),
    ("100.128.0.0", None, None, None),
    ("126.255.255.255", None, None, None),
    ("127.0.0.0", Some(Loopback), Some(Loopback), Some(Loopback)),
    ("127.0.0.1", Some(Loopback), Some(Loopback), Some(Loopback)),
    ("127.255.255.255", Some(Loopback), Some(Loopback), Some(Loopback)),
    ("128.0.0.0", None, None, None),
    ("168.63.129.15", None, None, None),
    ("168.63.129.16", Some(Metadata), Some(Metadata), Some(Metadata)),
    ("168.63.129.17", None, None, None),
    ("169.253.255.255", None, None, None),
    ("169.254.0.0", Some(LinkLocal), Some(LinkLocal), Some(LinkLocal)),
    ("169.254.0.23", Some(Metadata), Some(Metadata), Some(Metadata)),
    ("169.254.20.10", Some(LinkLocal), Some(LinkLocal), Some(LinkLocal)),
    ("169.254.42.42", Some(Metadata), Some(Metadata), Some(Metadata)),
    ("169.254.169.123", Some(Metadata), Some(Metadata), Some(Metadata)),
    ("169.254.169.251", Some(LinkLocal), Some(LinkLocal), Some(LinkLocal)),
    ("169.254.169.252", Some(Metadata), Some(Metadata), Some(Metadata)),
    ("169.254.169.253", Some(Metadata), Some(Metadata), Some(Metadata)),
    ("169.254.169.254", Some(Metadata), Some(Metadata), Some(Metadata)),
    ("169.254.169.255", Some(LinkLocal), Some(LinkLocal), Some(LinkLocal)),
    ("169.254.170.2", Some(Metadata), Some(Metadata), Some(Metadata)),
    ("169.254.170.23", Some(Metadata), Some(Metadata), Some(Metadata)),
    ("169.254.255.255", Some(LinkLocal), Some(LinkLocal), Some(LinkLocal)),
    ("169.255.0.0", None, None, None),
    ("172.15.255.255", None, None, None),
    ("172.16.0.0", None, Some(Private), None),
    ("172.31.255.255", None, Some(Private), None),
    ("172.32.0.0", None, None, None),
    ("192.0.0.0", Some(Reserved), Some(Reserved), Some(Reserved)),
    ("192.0.0.192", Some(Metadata), Some(Metadata), Some(Metadata)),
    ("192.0.0.255", Some(Reserved), Some(Reserved), Some(Reserved)),
    ("192.0.1.0", None, None, None),
    ("192.0.2.0", None, Some(Private), None),
    ("192.0.2.255", None, Some(Private), None),
    ("192.0.3.0", None, None, None),
    ("192.88.99.1", None, Some(Reserved), Some(Reserved)),
    ("192.167.255.255", None, None, None),
    ("192.168.0.0", None, Some(Private), None),
    ("192.168.255.255", None, Some(Private), None),
    ("192.169.0.0", None, None, None),
    ("198.17.255.255", None, None, None),
    ("198.18.0.0", Some(Reserved), Some(Reserved), Some(Reserved)),
    ("198.19.255.255", Some(Reserved), Some(Reserved), Some(Reserved)),
    ("198.20.0.0", None, None, None),
    ("198.51.100.7", None, Some(Private), None),
    ("203.0.113.7", None, Some(Private), None),
    ("223.255.255.255", None, None, None),
    ("224.0.0.0", Some(Multicast), Some(Multicast), Some(Multicast)),
    ("239.255.255.255", Some(Multicast), Some(Multicast), Some(Multicast)),
    ("240.0.0.0", Some(Reserved), Some(Reserved), Some(Reserved)),
    ("255.255.255.254", Some(Reserved), Some(Reserved), Some(Reserved)),
    ("255.255.255.255", Some(Broadcast), Some(Broadcast), Some(Broadcast)),

    ("::", Some(Unspecified), Some(Unspecified), Some(Unspecified)),
    ("::1", Some(Loopback), Some(Loopback), Some(Loopback)),
    ("::2", Some(Unspecified), Some(Unspecified), Some(Unspecified)),
    ("::8.8.8.8", Some(Embedded), Some(Embedded), Some(Embedded)),
    ("::127.0.0.1", Some(Loopback), Some(Loopback), Some(Loopback)),
    ("::ffff:8.8.8.8", None, Some(Embedded), Some(Embedded)),
    ("::ffff:10.0.0.1", None, Some(Embedded), Some(Embedded)),
    ("::ffff:127.0.0.1", Some(Loopback), Some(Loopback), Some(Loopback)),
    ("::ffff:169.254.169.254", Some(Metadata), Some(Metadata), Some(Metadata)),
    ("::ffff:0:169.254.169.254", Some(Metadata), Some(Metadata), Some(Metadata)),
    ("64:ff9b::808:808", None, Some(Embedded), Some(Embedded)),
    ("64:ff9b::a00:1", None, Some(Embedded), Some(Embedded)),
    ("64:ff9b::a9fe:a9fe", Some(Metadata), Some(Metadata), Some(Metadata)),
    ("64:ff9b::7f00:1", Some(Loopback), Some(Loopback), Some(Loopback)),
    ("64:ff9b::e000:1", Some(Multicast), Some(Multicast), Some(Multicast)),
    ("64:ff9b:1::808:808", Some(Embedded), Some(Embedded), Some(Embedded)),
    ("64:ff9b:1:ffff:ffff:ffff:ffff:ffff", Some(Embedded), Some(Embedded), Some(Embedded)),
    ("64:ff9b:2::", None, Some(Reserved), Some(Reserved)),
    ("100::1", None, Some(Reserved), Some(Reserved)),
    ("2001::", Some(Unspecified), Some(Unspecified), Some(Unspecified)),
    ("2001:0:a9fe:a9fe:0:0:f7f7:f7f7", Some(Metadata), Some(Metadata), Some(Metadata)),
    ("2001:0:808:808:0:0:f7f7:f7f7", None, Some(Embedded), Some(Embedded)),
    ("2001:0:808:808:0:0:5601:5601", Some(Metadata), Some(Metadata), Some(Metadata)),
    ("2001:2::1", None, Some(Reserved), Some(Reserved)),
    ("2001:2:1::1", None, None, None),
    ("2001:10::", None, Some(Reserved), Some(Reserved)),
    ("2001:2f:ffff::", None, Some(Reserved), Some(Reserved)),
    ("2001:30::", None, None, None),
    ("2001:db7:ffff::", None, None, None),
    ("2001:db8::", None, Some(Private), None),
    ("2001:db9::", None, None, None),
    ("2002:808:808::1", None, Some(Embedded), Some(Embedded)),
    ("2002:a9fe:a9fe::1", Some(Metadata), Some(Metadata), Some(Metadata)),
    ("2002:7f00:1::", Some(Loopback), Some(Loopback), Some(Loopback)),
    ("2606:4700::5efe:808:808", None, Some(Embedded), Some(Embedded)),
    ("2606:4700::5efe:a9fe:a9fe", Some(Metadata), Some(Metadata), Some(Metadata)),
    ("2606:4700::200:5efe:a9fe:a9fe", Some(Metadata), Some(Metadata), Some(Metadata)),
    ("2606:4700::1111", None, None, None),
    ("3ffe:ffff::", None, None, None),
    ("3fff::", None, Some(Private), None),
    ("3fff:fff:ffff::", None, Some(Private), None),
    ("3fff:1000::", None, None, None),
    ("4000::", None, Some(Reserved), Some(Reserved)),
    ("5f00::1", None, Some(Reserved), Some(Reserved)),
    ("fbff:ffff::", None, Some(Reserved), Some(Reserved)),
    ("fc00::", None, Some(Private), None),
    ("fd00::1", None, Some(Private), None),
    ("fdff:ffff::", None, Some(Private), None),
    ("fd00:c1::a9fe:a9fe", Some(Metadata), Some(Metadata), Some(Metadata)),
    ("fd00:c1::a9fe:a9ff", None, Some(Private), None),
    ("fd00:ec1:ffff::", None, Some(Private), None),
    ("fd00:ec2::", Some(Metadata), Some(Metadata), Some(Metadata)),
    ("fd00:ec2::23", Some(Metadata), Some(Metadata), Some(Metadata)),
    ("fd00:ec2::123", Some(Metadata), Some(Metadata), Some(Metadata)),
    ("fd00:ec2::253", Some(Metadata), Some(Metadata), Some(Metadata)),
    ("fd00:ec2::254", Some(Metadata), Some(Metadata), Some(Metadata)),
    ("fd00:ec3::", None, Some(Private), None),
    ("fd00:42::42", Some(Metadata), Some(Metadata), Some(Metadata)),
    ("fd00:a9fe:a9fe::1", Some(Metadata), Some(Metadata), Some(Metadata)),
    ("fd20:ce::254", Some(Metadata), Some(Metadata), Some(Metadata)),
    ("fd00:5de6::", Some(Reserved), Some(Reserved), Some(Reserved)),
    ("fd00:5de6:0:0:ffff:ffff:ffff:ffff", Some(Reserved), Some(Reserved), Some(Reserved)),
    ("fd00:5de6:0:1::", None, Some(Private), None),
    ("fe00::", None, Some(Reserved), Some(Reserved)),
    ("fe7f:ffff::", None, Some(Reserved), Some(Reserved)),
    ("fe80::", Some(LinkLocal), Some(LinkLocal), Some(LinkLocal)),
    ("fe80::a9fe:a9fe", Some(Metadata), Some(Metadata), Some(Metadata)),
    ("febf:ffff::", Some(LinkLocal), Some(LinkLocal), Some(LinkLocal)),
    ("fec0::", None, Some(Reserved), Some(Reserved)),
    ("feff:ffff::", None, Some(Reserved), Some(Reserved)),
    ("ff00::", Some(Multicast), Some(Multicast), Some(Multicast)),
    ("ff02::1", Some(Multicast), Some(Multicast), Some(Multicast)),
    ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some(Multicast), Some(Multicast), Some(Multicast)),
];

#[test]
fn every_range_and_its_edges() {
    for (text, destination, answer, private_answer) in CASES {
        let address = address(text);
        assert_eq!(denied_destination(address), *destination, "{text} as a destination");
        assert_eq!(denied_answer(address, false), *answer, "{text} as an answer");
        assert_eq!(denied_answer(address, true), *private_answer, "{text} as a private answer");
    }
}

/// The standard library's own view is the negative control of the embedded forms: it sees plain IPv6 addresses.
#[test]
fn embedded_forms_would_pass_a_look_at_the_outer_address() {
    for text in ["64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:808:808:0:0:80ff:fffe", "2600::5efe:7f00:1"] {
        let IpAddr::V6(outer) = address(text) else { panic!("{text} is IPv6") };
        assert!(!outer.is_loopback() && !outer.is_unicast_link_local() && !outer.is_multicast(), "{text}");
        assert_eq!(denied_destination(outer.into()), Some(Loopback), "{text}");
    }
}

#[test]
fn whatever_is_denied_as_a_destination_is_denied_as_an_answer() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u128;
    for round in 0..200_000_u32 {
        state = state.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645).wrapping_add(1);
        let bits = if round % 3 == 0 { state & (0xffff << 112 | 0xffff_ffff) } else { state };
        let address = if round % 2 == 0 {
            IpAddr::V4(Ipv4Addr::from_bits((state >> 96) as u32))
        } else {
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        };
        if denied_destination(address).is_some() {
            assert!(
                denied_answer(address, false).is_some() && denied_answer(address, true).is_some(),
                "{address}"
            );
        }
        if denied_answer(address, true).is_some() {
            assert!(denied_answer(address, false).is_some(), "{address}");
        }
    }
}

#[test]
fn grants_open_only_what_the_table_closes() {
    for grant in Grant::ALL {
        assert!(!grant.openings().is_empty());
        for opening in grant.openings() {
            assert_eq!(denied_destination(opening.address), Some(Metadata), "{opening:?}");
            assert_eq!(opening.udp, *grant == Grant::Time);
        }
    }
}

#[test]
fn no_datagram_prefix_forgets_the_table() {
    let denied: Vec<IpNet> = datagram_denials().collect();
    for (text, destination, ..) in CASES.iter().filter(|(text, ..)| !text.contains("5efe")) {
        let listed = denied.iter().any(|net| net.contains(&address(text)));
        assert!(listed || destination.is_none(), "{text}");
    }
}

/// The look at the first octet clears nothing that a line holds.
#[test]
fn the_first_octet_hides_no_line() {
    let plainly = |octet: u8| {
        let v4 = Ipv4Net::new_assert([octet, 0, 0, 0].into(), 8);
        let v6 = Ipv6Net::new_assert([u16::from(octet) << 8, 0, 0, 0, 0, 0, 0, 0].into(), 8);
        let meets_v4 = |line: &Line<Ipv4Net>| line.net.contains(&v4) || v4.contains(&line.net);
        let meets_v6 = |line: &Line<Ipv6Net>| line.net.contains(&v6) || v6.contains(&line.net);
        [
            EVERYWHERE_V4.lines.iter().any(meets_v4),
            NAMES_V4.lines.iter().any(meets_v4),
            EVERYWHERE_V6.lines.iter().any(meets_v6),
            NAMES_V6.lines.iter().any(meets_v6),
        ]
    };
    for octet in 0..=u8::MAX {
        let at = usize::from(octet);
        let looked =
            [EVERYWHERE_V4.octets, NAMES_V4.octets, EVERYWHERE_V6.octets, NAMES_V6.octets].map(|all| all[at]);
        assert_eq!(looked, plainly(octet), "{octet}");
    }
}
