//! What the rules are for: connections come to the proxy with their destination, and allowed datagrams leave.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::OwnedFd,
};

use sidegate_harness::{
    Case, World,
    world::{APP_V4, WORLD_V4},
};
use sidegate_proxy::redirect::{
    Exempt, INBOUND_PORT, Netlink, OUTBOUND_PORT, Spec, original_dst, prepare_loopback, replace_udp,
};
use tokio::net::TcpListener;

use crate::{PATIENCE, TARGET_V4, TARGET_V6, allow, dial, put_in_place, sidecar};

pub(crate) const CASES: &[Case] = &[
    Case { name: "connections_keep_their_destination", run: connections_keep_their_destination },
    Case {
        name: "a_namespace_without_devices_captures_alike",
        run: a_namespace_without_devices_captures_alike,
    },
    Case { name: "dns_goes_to_the_proxy", run: dns_goes_to_the_proxy },
    Case { name: "allowed_datagrams_follow_the_policy", run: allowed_datagrams_follow_the_policy },
    Case { name: "the_exempt_user_dials", run: the_exempt_user_dials },
    Case {
        name: "a_stranger_says_nothing_in_an_arrived_flow",
        run: a_stranger_says_nothing_in_an_arrived_flow,
    },
    Case {
        name: "arriving_tcp_goes_to_the_inbound_listener",
        run: arriving_tcp_goes_to_the_inbound_listener,
    },
    Case { name: "who_came_from_outside_is_answered", run: who_came_from_outside_is_answered },
];

/// Dials `to` and learns what the proxy's listener at `listen` hears of it.
fn heard(listen: SocketAddr, to: SocketAddr) -> Result<SocketAddr, ErrorKind> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await.unwrap();
        let dialled = tokio::task::spawn_blocking(move || dial(to));
        let (stream, _) = tokio::time::timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        dialled.await.unwrap().unwrap();
        original_dst(&stream).map(|original| original.socket_addr()).map_err(|error| error.kind())
    })
}

fn capture_both_families() {
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, OUTBOUND_PORT));
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, OUTBOUND_PORT));
    let dual = SocketAddr::from((Ipv6Addr::UNSPECIFIED, OUTBOUND_PORT));
    for port in [1, 80, 443, 15001, 65535] {
        let (to_v4, to_v6) = ((TARGET_V4, port).into(), (TARGET_V6, port).into());
        assert_eq!(heard(v4, to_v4), Ok(to_v4));
        assert_eq!(heard(v6, to_v6), Ok(to_v6));
        assert_eq!(heard(dual, to_v4), Ok(to_v4), "IPv4-mapped");
        assert_eq!(heard(dual, SocketAddr::from((TARGET_V4.to_ipv6_mapped(), port))), Ok(to_v4));
    }
    // Not captured: between processes of the workload.
    let neighbour = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
    assert_eq!(heard(neighbour, neighbour), Err(ErrorKind::NotFound));
}

fn connections_keep_their_destination() {
    let mut world = World::new();
    put_in_place(&sidecar());
    capture_both_families();
    assert_eq!(world.frames(), []);
}

fn a_namespace_without_devices_captures_alike() {
    prepare_loopback().unwrap();
    prepare_loopback().expect("twice is as good");
    put_in_place(&Spec::run());
    capture_both_families();
}

fn dns_goes_to_the_proxy() {
    prepare_loopback().unwrap();
    put_in_place(&Spec::run());
    for (listen, resolvers) in [
        ("127.0.0.1:15053", ["198.51.100.53:53", "127.0.0.53:53"]),
        ("[::1]:15053", ["[2001:db8::53]:53", "[::1]:53"]),
    ] {
        let proxy = UdpSocket::bind(listen).unwrap();
        for resolver in resolvers {
            let resolver: SocketAddr = resolver.parse().unwrap();
            let wildcard = if resolver.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let client = UdpSocket::bind(wildcard).unwrap();
            for socket in [&client, &proxy] {
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
            }
            client.connect(resolver).unwrap();
            client.send(b"question").unwrap();
            let mut buffer = [0; 16];
            let (length, from) = proxy.recv_from(&mut buffer).unwrap();
            proxy.send_to(&buffer[..length], from).unwrap();
            // Connected: only an answer in the resolver's name is taken.
            assert_eq!(client.recv(&mut buffer).unwrap(), length, "{resolver}");
        }
    }
}

fn allowed_datagrams_follow_the_policy() {
    let mut world = World::new();
    put_in_place(&sidecar());
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let to = SocketAddr::from((TARGET_V4, 123));
    socket.send_to(b"canary", to).expect_err("refused at once");
    assert_eq!(world.frames(), []);
    // A client that only listens learns of it too: ICMP "administratively prohibited".
    let connected = UdpSocket::bind("0.0.0.0:0").unwrap();
    connected.set_read_timeout(Some(PATIENCE)).unwrap();
    connected.connect(to).unwrap();
    connected.send(b"canary").expect_err("refused at once");
    assert_eq!(connected.recv(&mut [0; 1]).expect_err("told").kind(), ErrorKind::HostUnreachable);
    let mut netlink = Netlink::netfilter().unwrap();
    let fence = allow("10.77.0.1/32", 9);
    replace_udp(&mut netlink, &[fence.clone(), allow("198.51.100.0/24", 123), allow("198.51.0.0/16", 123)])
        .unwrap();
    socket.send_to(b"canary", to).unwrap();
    socket.send_to(b"canary", SocketAddr::from((TARGET_V4, 124))).expect_err("another port");
    socket.send_to(b"canary", "203.0.113.1:123").expect_err("another address");
    assert_eq!(world.frames().len(), 1);
    replace_udp(&mut netlink, &[fence]).unwrap();
    socket.send_to(b"canary", to).expect_err("no longer, though the flow is known");
    assert_eq!(world.frames(), []);
}

fn the_exempt_user_dials() {
    let mut world = World::new();
    // Everybody here is uid 0, so that the exemption can be shown without a second uid.
    put_in_place(&Spec { exempt: Exempt::Uid(0), ..sidecar() });
    let listener = world.run(|| std::net::TcpListener::bind((WORLD_V4, 443)).unwrap());
    let stream = dial((WORLD_V4, 443).into()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    assert_eq!(accepted.peer_addr().unwrap().ip(), APP_V4, "not redirected");
    drop((stream, accepted));
    assert!(!world.frames().is_empty());
}

fn who_came_from_outside_is_answered() {
    let world = World::new();
    put_in_place(&sidecar());
    let service = std::net::TcpListener::bind((APP_V4, 8080)).unwrap();
    let client: OwnedFd = world.run(|| dial((APP_V4, 8080).into()).unwrap()).into();
    let (mut server, _) = service.accept().unwrap();
    std::io::Write::write_all(&mut server, b"answer").unwrap();
    let mut answer = [0; 6];
    std::io::Read::read_exact(&mut std::net::TcpStream::from(client), &mut answer).unwrap();
    assert_eq!(&answer, b"answer");
    // The proxy's own outbound port is not for outsiders.
    let _outbound = std::net::TcpListener::bind((APP_V4, OUTBOUND_PORT)).unwrap();
    let refused = world.run(|| {
        let at = SocketAddr::from((APP_V4, OUTBOUND_PORT));
        #[allow(clippy::disallowed_methods, reason = "plays an outsider")]
        std::net::TcpStream::connect_timeout(&at, std::time::Duration::from_millis(300)).is_err()
    });
    assert!(refused);
}

/// The control is the case after it: the same flow, answered by the user that may.
fn a_stranger_says_nothing_in_an_arrived_flow() {
    let mut world = World::new();
    put_in_place(&Spec { inbound: Some(INBOUND_PORT), ..sidecar() });
    // One for redirected connections, one where the rules lead none.
    for (listens, dialled) in [(INBOUND_PORT, 8080), (15008, 15008)] {
        let _stranger = std::net::TcpListener::bind(("0.0.0.0", listens)).unwrap();
        let refused = world.run(|| {
            let at = SocketAddr::from((APP_V4, dialled));
            #[allow(clippy::disallowed_methods, reason = "plays an outsider")]
            std::net::TcpStream::connect_timeout(&at, std::time::Duration::from_millis(300)).is_err()
        });
        assert!(refused, "{dialled}");
    }
    assert_eq!(world.frames(), [], "not even an acknowledgement");
}

fn arriving_tcp_goes_to_the_inbound_listener() {
    let world = World::new();
    // Everybody here is uid 0, so that the proxy's part can be played.
    put_in_place(&Spec { inbound: Some(INBOUND_PORT), exempt: Exempt::Uid(0), ..sidecar() });
    let inbound = std::net::TcpListener::bind(("0.0.0.0", INBOUND_PORT)).unwrap();
    let readiness = std::net::TcpListener::bind(("0.0.0.0", 15021)).unwrap();
    let client = world.run(|| dial((APP_V4, 8080).into()).unwrap());
    let (accepted, _) = inbound.accept().unwrap();
    assert_eq!(accepted.peer_addr().unwrap(), client.local_addr().unwrap());
    // The proxy's own services are reached as they are.
    let probe = world.run(|| dial((APP_V4, 15021).into()).unwrap());
    assert_eq!(readiness.accept().unwrap().1, probe.local_addr().unwrap());
}
