//! Ways around a redirect. Each is shown to reach the world through a naive one before it counts as stopped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use sidegate_harness::{
    Case, World,
    netns::{nft, python},
    world::{APP_V4, APP_V6},
};

use crate::{dial, listeners, put_in_place, sidecar};

pub(crate) const CASES: &[Case] = &[
    Case { name: "no_probe_reaches_the_world", run: no_probe_reaches_the_world },
    Case { name: "every_probe_passes_a_naive_redirect", run: every_probe_passes_a_naive_redirect },
    Case { name: "own_ports_are_closed_to_the_workload", run: own_ports_are_closed_to_the_workload },
    Case { name: "a_forged_arrival_opens_no_way_out", run: a_forged_arrival_opens_no_way_out },
    Case { name: "a_local_address_never_reaches_a_wire", run: a_local_address_never_reaches_a_wire },
];

/// What every probe carries, to be recognised in a frame.
const CANARY: &str = "canary-5de6";

/// What a redirect looks like that only thinks of TCP over IPv4 and trusts a mark.
const NAIVE: &str = "
table ip naive {
    chain out {
        type nat hook output priority -100
        meta mark 0x539 return
        ip daddr 198.51.100.0/24 meta l4proto tcp redirect to :15001
    }
}";

const PRELUDE: &str = "
import os, socket, struct
from socket import *
canary = b'canary-5de6'
v4, v6 = '198.51.100.7', '2001:db8::7'
def raw(family, protocol, to, payload, option=None):
    s = socket(family, SOCK_RAW, protocol)
    if option: s.setsockopt(*option)
    try: s.sendto(payload, (to, 0))
    except PermissionError: pass
def send(s, to):
    s.settimeout(1)
    try: s.sendto(canary, to)
    except OSError: pass
def tcp(s, to):
    s.settimeout(3)
    try: s.connect(to); s.send(canary)
    except OSError: pass
def checksum(b):
    t = sum(struct.unpack('!%dH' % (len(b) // 2), b)); t = (t >> 16) + (t & 65535); return ~(t + (t >> 16)) & 65535
def ip4(payload, protocol=17):
    h = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0, inet_aton('10.77.0.2'), inet_aton(v4))
    return h[:10] + struct.pack('!H', checksum(h)) + h[12:] + payload
def ip6(payload, protocol=17):
    return struct.pack('!IHBB', 6 << 28, len(payload), protocol, 64) + inet_pton(AF_INET6, 'fd77::2') + inet_pton(AF_INET6, v6) + payload
udp = struct.pack('!HHHH', 5000, 443, 8 + len(canary), 0) + canary
def frame(kind, payload, bypass=False, mark=0):
    s = socket(AF_PACKET, SOCK_RAW)
    s.bind(('app0', kind))
    if bypass: s.setsockopt(263, 20, 1)
    if mark: s.setsockopt(SOL_SOCKET, 36, mark)
    try: s.send(bytes.fromhex('020000000001020000000002') + struct.pack('!H', kind) + payload)
    except OSError: pass
";

/// Name, Python, and whether the naive redirect lets it through.
const PROBES: &[(&str, &str)] = &[
    ("TCP over IPv6", "tcp(socket(AF_INET6), (v6, 443))"),
    ("QUIC", "send(socket(AF_INET, SOCK_DGRAM), (v4, 443))"),
    ("QUIC over IPv6", "send(socket(AF_INET6, SOCK_DGRAM), (v6, 443))"),
    ("DNS over QUIC", "send(socket(AF_INET, SOCK_DGRAM), (v4, 853))"),
    ("UDP-Lite", "send(socket(AF_INET, SOCK_DGRAM, 136), (v4, 443))"),
    ("UDP-Lite over IPv6", "send(socket(AF_INET6, SOCK_DGRAM, 136), (v6, 443))"),
    ("DNS to another resolver", "send(socket(AF_INET, SOCK_DGRAM), (v4, 53))"),
    ("DNS to another resolver over IPv6", "send(socket(AF_INET6, SOCK_DGRAM), (v6, 53))"),
    ("ICMP echo", "raw(AF_INET, 1, v4, struct.pack('!BBHHH', 8, 0, 0, 1, 1) + canary)"),
    ("ICMPv6 echo", "raw(AF_INET6, 58, v6, struct.pack('!BBHHH', 128, 0, 0, 1, 1) + canary)"),
    ("SCTP", "raw(AF_INET, 132, v4, canary)"),
    ("GRE", "raw(AF_INET, 47, v4, canary)"),
    ("an experimental protocol", "raw(AF_INET, 253, v4, canary)"),
    ("SCTP over IPv6", "raw(AF_INET6, 132, v6, canary)"),
    ("an experimental protocol over IPv6", "raw(AF_INET6, 253, v6, canary)"),
    ("a self-made UDP packet", "raw(AF_INET, 255, v4, ip4(udp))"),
    (
        "a TCP segment of no connection",
        "raw(AF_INET, 255, v4, ip4(struct.pack('!HHIIBBHHH', 5000, 444, 7, 7, 80, 16, 512, 0, 0) + canary, 6), (SOL_SOCKET, 36, 0x539))",
    ),
    (
        "a forged neighbour solicitation",
        "raw(AF_INET6, 58, v6, struct.pack('!BBHI', 135, 0, 0, 0) + inet_pton(AF_INET6, v6) + canary)",
    ),
    ("a forged mark", "s = socket(AF_INET); s.setsockopt(SOL_SOCKET, 36, 0x539); tcp(s, (v4, 443))"),
    (
        "a mark of ours, forged",
        "s = socket(AF_INET, SOCK_DGRAM); s.setsockopt(SOL_SOCKET, 36, 0x5de60001); send(s, (v4, 443))",
    ),
    ("a raw frame", "frame(0x0800, ip4(udp))"),
    ("a raw frame over IPv6", "frame(0x86dd, ip6(udp))"),
    ("a raw frame past the queue", "frame(0x0800, ip4(udp), bypass=True)"),
    ("a raw frame with a mark", "frame(0x0800, ip4(udp), mark=0x5de60001)"),
    ("an ARP frame with a payload", "frame(0x0806, canary * 5)"),
    ("a frame of an unknown type", "frame(0x88b5, canary)"),
];

fn no_probe_reaches_the_world() {
    let _listeners = listeners();
    let mut world = World::new();
    put_in_place(&sidecar());
    for (name, program) in PROBES {
        python(&format!("{PRELUDE}\n{program}"));
        let arrived = world.frames();
        assert!(arrived.is_empty(), "{name}: {arrived:02x?}");
    }
}

/// The negative control: otherwise the probes would prove nothing.
fn every_probe_passes_a_naive_redirect() {
    let _listeners = listeners();
    let mut world = World::new();
    nft(NAIVE);
    for (name, program) in PROBES {
        python(&format!("{PRELUDE}\n{program}"));
        let arrived = world.frames();
        // A connection has no canary before the world answers: its SYN counts.
        let tcp = name.contains("TCP over") || *name == "a forged mark";
        let seen = arrived.iter().any(|frame| tcp || frame.contains(CANARY.as_bytes()));
        assert!(seen, "{name} did not arrive: {arrived:02x?}");
    }
}

fn own_ports_are_closed_to_the_workload() {
    let _listeners = listeners();
    let mut world = World::new();
    let addresses: [IpAddr; 6] = [
        Ipv4Addr::LOCALHOST.into(),
        Ipv4Addr::UNSPECIFIED.into(),
        Ipv4Addr::new(127, 9, 9, 9).into(),
        Ipv6Addr::LOCALHOST.into(),
        APP_V4.into(),
        APP_V6.into(),
    ];
    let open = |address, port| dial(SocketAddr::new(address, port)).is_ok();
    // The control: without rules the listeners answer.
    assert!(open(Ipv4Addr::UNSPECIFIED.into(), 15001) && open(Ipv6Addr::LOCALHOST.into(), 15021));
    put_in_place(&sidecar());
    for address in addresses {
        for port in [15001, 15053, 15021] {
            let error = dial(SocketAddr::new(address, port)).expect_err("closed");
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{address} {port}");
        }
    }
    assert!(world.frames().is_empty());
}

/// A workload sends itself a datagram in a stranger's name and "answers" it.
fn a_forged_arrival_opens_no_way_out() {
    const PROGRAM: &str = "
a = socket(AF_INET6, SOCK_DGRAM); a.bind(('fd77::2', 5555)); a.settimeout(0.5)
b = socket(AF_INET6, SOCK_DGRAM); b.setsockopt(41, 78, 1); b.bind((v6, 443))
try: b.sendto(b'open', ('fd77::2', 5555)); a.recv(9)
except OSError: pass
send(a, (v6, 443))
";
    let mut world = World::new();
    nft("table inet naive { chain out { type filter hook output priority 0; policy drop;
        fib daddr type local accept
        udp dport 9 accept
        meta l4proto ipv6-icmp accept
        ct direction reply accept
    }; }");
    python(&format!("{PRELUDE}\n{PROGRAM}"));
    assert!(world.frames().iter().any(|frame| frame.contains(CANARY.as_bytes())), "the control");
    nft("delete table inet naive");
    put_in_place(&sidecar());
    python(&format!("{PRELUDE}\n{}", PROGRAM.replace("5555", "5556")));
    assert_eq!(world.frames(), []);
}

/// A socket bound to a device sends even 127.0.0.1 over it.
fn a_local_address_never_reaches_a_wire() {
    const PROGRAM: &str =
        "s = socket(AF_INET, SOCK_DGRAM); s.setsockopt(SOL_SOCKET, 25, b'app0'); send(s, ('127.0.0.1', 443))";
    let mut world = World::new();
    python(&format!("{PRELUDE}\n{PROGRAM}"));
    assert!(world.frames().iter().any(|frame| frame.contains(CANARY.as_bytes())), "the control");
    put_in_place(&sidecar());
    python(&format!("{PRELUDE}\n{PROGRAM}"));
    assert_eq!(world.frames(), []);
}
