//! The rules over time: before the proxy, without it, replaced under load, and taken away by somebody else.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use sidegate_harness::{
    Case, Frame, World,
    netns::{Netns, nft},
    until,
    world::WORLD_V4,
};
use sidegate_policy::set::UdpDestination;
use sidegate_proxy::redirect::{Netlink, Spec, Watch, WatchSockets, install, links, remove, replace_udp};

use crate::{PATIENCE, TARGET_V4, TARGET_V6, allow, dial, listeners, put_in_place, sidecar};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "a_connection_older_than_the_rules_sends_no_more",
        run: a_connection_older_than_the_rules_sends_no_more,
    },
    Case { name: "nothing_leaks_without_the_proxy", run: nothing_leaks_without_the_proxy },
    Case { name: "a_reload_under_load_leaks_nothing", run: a_reload_under_load_leaks_nothing },
    Case { name: "a_reload_in_two_steps_leaks", run: a_reload_in_two_steps_leaks },
    Case {
        name: "allowed_datagrams_pass_through_every_change",
        run: allowed_datagrams_pass_through_every_change,
    },
    Case { name: "rules_taken_away_come_back", run: rules_taken_away_come_back },
    Case { name: "removal_leaves_nothing", run: removal_leaves_nothing },
];

fn a_connection_older_than_the_rules_sends_no_more() {
    let mut world = World::new();
    let listener = world.run(|| TcpListener::bind((WORLD_V4, 443)).unwrap());
    let mut stream = dial((WORLD_V4, 443).into()).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    stream.write_all(b"before").unwrap();
    accepted.read_exact(&mut [0; 6]).unwrap();
    assert!(!world.frames().is_empty(), "the control");
    put_in_place(&sidecar());
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(b"after");
    let error = stream.read(&mut [0; 1]).expect_err("reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(world.frames(), []);
}

fn nothing_leaks_without_the_proxy() {
    let mut world = World::new();
    let proxy = listeners();
    put_in_place(&sidecar());
    dial((TARGET_V4, 443).into()).expect("captured");
    drop(proxy);
    for to in [SocketAddr::from((TARGET_V4, 443)), (TARGET_V6, 443).into()] {
        assert_eq!(dial(to).expect_err("nobody listens").kind(), ErrorKind::ConnectionRefused);
    }
    assert_eq!(world.frames(), []);
}

/// What a changing ruleset did to traffic.
struct UnderLoad {
    arrived: Vec<Frame>,
    /// Captured connections that failed.
    lost: usize,
}

/// Ends the load also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Calls `change` again and again while connections and datagrams try to leave.
fn under_load(world: &mut World, rounds: usize, change: impl Fn(&mut Netlink)) -> UnderLoad {
    let (stop, tries, lost) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let (here, proxy) = (Netns::current(), listeners());
    proxy.iter().for_each(|listener| listener.set_nonblocking(true).unwrap());
    put_in_place(&sidecar());
    let load = || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        while !stop.load(Ordering::Relaxed) {
            for to in [SocketAddr::from((TARGET_V4, 443)), (TARGET_V6, 443).into()] {
                lost.fetch_add(usize::from(dial(to).is_err()), Ordering::Relaxed);
            }
            let _ = socket.send_to(b"canary", (TARGET_V4, 443));
            proxy.iter().for_each(|listener| while listener.accept().is_ok() {});
            tries.fetch_add(1, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        for _ in 0..2 {
            scope.spawn(|| here.run(load));
        }
        let mut netlink = Netlink::netfilter().unwrap();
        for _ in 0..rounds {
            let before = tries.load(Ordering::Relaxed);
            change(&mut netlink);
            until(PATIENCE, "the load goes on", || tries.load(Ordering::Relaxed) > before);
        }
    });
    UnderLoad { arrived: world.frames(), lost: lost.into_inner() }
}

fn a_reload_under_load_leaks_nothing() {
    let mut world = World::new();
    let seen = under_load(&mut world, 1000, |netlink| drop(install(netlink, &sidecar()).unwrap()));
    assert_eq!(seen.arrived, []);
    assert_eq!(seen.lost, 0);
}

/// The negative control of the one-transaction reload.
fn a_reload_in_two_steps_leaks() {
    let mut world = World::new();
    let leaked = (0..20).any(|_| {
        let seen = under_load(&mut world, 5, |netlink| {
            remove(netlink).unwrap();
            install(netlink, &sidecar()).unwrap();
        });
        !seen.arrived.is_empty()
    });
    assert!(leaked);
}

/// Allowed datagrams that were refused while `change` turned other destinations on and off.
fn refused_over_changes(change: impl Fn(&mut Netlink, &[UdpDestination])) -> usize {
    const ROUNDS: usize = 200;
    let (stop, sent, refused) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let here = Netns::current();
    let flow = [SocketAddr::from((TARGET_V4, 443)), (TARGET_V6, 443).into()];
    let allowed = [allow("198.51.100.7/32", 443), allow("2001:db8::7/128", 443)];
    let others = [allow("198.51.100.0/24", 80), allow("192.0.2.0/24", 443), allow("2001:db8::/64", 80)];
    put_in_place(&Spec { udp: allowed.to_vec(), ..sidecar() });
    let send = || {
        let sockets = ["0.0.0.0:0", "[::]:0"].map(|at| UdpSocket::bind(at).unwrap());
        while !stop.load(Ordering::Relaxed) {
            for (socket, to) in sockets.iter().zip(flow) {
                refused.fetch_add(usize::from(socket.send_to(b"flow", to).is_err()), Ordering::Relaxed);
            }
            sent.fetch_add(1, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| here.run(send));
        let mut netlink = Netlink::netfilter().unwrap();
        for round in 0..ROUNDS {
            let before = sent.load(Ordering::Relaxed);
            let more = &others[..round % (others.len() + 1)];
            change(&mut netlink, &[&allowed[..], more].concat());
            until(PATIENCE, "the flow goes on", || sent.load(Ordering::Relaxed) > before);
        }
    });
    refused.into_inner()
}

fn allowed_datagrams_pass_through_every_change() {
    let _world = World::new();
    let refused = refused_over_changes(|netlink, udp| replace_udp(netlink, udp).unwrap());
    assert_eq!(refused, 0);
    let in_two_steps = refused_over_changes(|netlink, udp| {
        replace_udp(netlink, &[]).unwrap();
        replace_udp(netlink, udp).unwrap();
    });
    assert!(in_two_steps > 0, "the negative control");
}

fn rules_taken_away_come_back() {
    let _listeners = listeners();
    let mut world = World::new();
    let watch = Watch::start(WatchSockets::open().unwrap(), sidecar(), links::outward().unwrap()).unwrap();
    let refused = || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(b"canary", (TARGET_V4, 443)).is_err()
    };
    let attacks = [
        "flush ruleset",
        "delete table inet sidegate",
        "insert rule inet sidegate leave accept",
        "flush chain inet sidegate leave\nadd rule inet sidegate leave accept",
        "add element inet sidegate udp4 { 198.51.100.7 . 443 }",
        "add table inet sidegate { flags dormant; }",
    ];
    assert!(refused(), "the control");
    for attack in attacks {
        nft(attack);
        let started = Instant::now();
        until(Duration::from_secs(1), attack, refused);
        println!("  restored after {:?}: {attack}", started.elapsed());
    }
    watch.replace_udp(&sidecar().udp).unwrap();
    drop(watch);
    world.frames();
    assert!(refused(), "the rules outlive the watch");
    assert_eq!(world.frames(), []);
}

fn removal_leaves_nothing() {
    let mut netlink = Netlink::netfilter().unwrap();
    remove(&mut netlink).expect("nothing to remove is fine");
    let mut world = World::new();
    put_in_place(&sidecar());
    put_in_place(&sidecar());
    assert!(nft("list ruleset").contains("table netdev sidegate"));
    remove(&mut netlink).unwrap();
    assert_eq!(nft("list ruleset"), "");
    UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"canary", (TARGET_V4, 443)).unwrap();
    assert_eq!(world.frames().len(), 1);
}
