//! Refusals are told, and the rules can be read.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use sidegate_harness::{Case, World, netns::nft, until};
use sidegate_proxy::redirect::{
    NFLOG_GROUP, Netlink, Plan, Refusal, Refusals, RefusedProtocol, Spec, install, prepare_loopback, remove,
};

use crate::{PATIENCE, TARGET_V4, TARGET_V6, dial, put_in_place, sidecar};

pub(crate) const CASES: &[Case] = &[
    Case { name: "refusals_are_told", run: refusals_are_told },
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
