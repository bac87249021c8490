//! Refusals are told, and the rules can be read.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket},
    time::Duration,
};

use sidegate_harness::{
    Case, World,
    netns::{ip, nft},
    until,
};
use sidegate_proxy::redirect::{
    NFLOG_GROUP, Netlink, Plan, Refusal, Refusals, RefusedProtocol, Spec, install, prepare_loopback, remove,
};

use crate::{PATIENCE, TARGET_V4, TARGET_V6, dial, dial_for, put_in_place, sidecar};

pub(crate) const CASES: &[Case] = &[
    Case { name: "refusals_are_told", run: refusals_are_told },
    Case { name: "a_scoped_address_is_refused_at_once", run: a_scoped_address_is_refused_at_once },
    Case { name: "the_printed_rules_are_the_installed_ones", run: the_printed_rules_are_the_installed_ones },
];

fn refusals_are_told() {
    prepare_loopback().unwrap();
    put_in_place(&Spec::run());
    let refusals = Refusals::open(NFLOG_GROUP).unwrap();
    assert_eq!(refusals.take().unwrap(), []);
    let mut expected = Vec::new();
    for (local, to) in
        [("0.0.0.0:4001", SocketAddr::from((TARGET_V4, 443))), ("[::]:4002", (TARGET_V6, 443).into())]
    {
        let socket = UdpSocket::bind(local).unwrap();
        socket.connect(to).unwrap();
        socket.send(b"x").expect_err("refused");
        expected.push(Refusal {
            protocol: RefusedProtocol::Udp,
            source: socket.local_addr().unwrap(),
            destination: to,
        });
    }
    let own = SocketAddr::from((Ipv4Addr::LOCALHOST, 15001));
    dial(own).expect_err("closed");
    let mut told = Vec::new();
    until(PATIENCE, "three refusals", || {
        told.extend(refusals.take().unwrap());
        told.len() >= 3
    });
    assert_eq!(told[..2], expected);
    assert_eq!((told[2].protocol, told[2].destination), (RefusedProtocol::Tcp, own));
    assert_eq!(told.len(), 3);
}

/// The socket of such a connection is bound to a device: redirected, it would send to `::1` over the wire and wait.
fn a_scoped_address_is_refused_at_once() {
    let mut world = World::new();
    ip("address add fe80::2/64 dev app0 nodad");
    let device =
        rustix::net::netdevice::name_to_index(UdpSocket::bind("0.0.0.0:0").unwrap(), "app0").unwrap();
    let far = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x77);
    let to = |port| SocketAddr::V6(SocketAddrV6::new(far, port, 0, device));
    // The control: rules that redirect it, and let nothing of it reach the wire.
    nft("table inet naive {
        chain out { type nat hook output priority -100; meta l4proto tcp redirect to :15001; }
        chain wire { type filter hook postrouting priority 300; oif != \"lo\" fib daddr type local drop; }
    }");
    let error = dial_for(Duration::from_secs(1), to(443)).expect_err("hangs");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    nft("delete table inet naive");
    put_in_place(&sidecar());
    let refusals = Refusals::open(NFLOG_GROUP).unwrap();
    for port in [443, 53] {
        let error = dial(to(port)).expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let mut told = Vec::new();
        until(PATIENCE, "a refusal", || {
            told.extend(refusals.take().unwrap());
            !told.is_empty()
        });
        let told: Vec<_> = told.iter().map(|refusal| (refusal.protocol, refusal.destination)).collect();
        assert_eq!(told, [(RefusedProtocol::Tcp, SocketAddr::from((far, port)))]);
    }
    assert_eq!(world.frames(), []);
}

/// What nft makes of our text is what the kernel got from our encoder.
fn the_printed_rules_are_the_installed_ones() {
    let _world = World::new();
    let mut netlink = Netlink::netfilter().unwrap();
    for spec in [sidecar(), Spec::run(), Spec { inbound: Some(15006), loopback_dns: true, ..sidecar() }] {
        install(&mut netlink, &spec).unwrap();
        let installed = nft("list ruleset");
        remove(&mut netlink).unwrap();
        nft(&Plan::new(&spec, &["app0".to_owned()]).to_string());
        assert_eq!(nft("list ruleset"), installed);
    }
}
