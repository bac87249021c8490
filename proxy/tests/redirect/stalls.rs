//! Many short connections from one namespace, funnelled to one listener.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use sidegate_harness::{Case, netns::Netns};
use sidegate_proxy::redirect::{OUTBOUND_PORT, Spec, prepare_loopback};

use crate::{dial, put_in_place};

pub(crate) const CASES: &[Case] = &[
    Case { name: "short_connections_do_not_stall", run: short_connections_do_not_stall },
    Case { name: "without_the_setting_syns_are_sent_twice", run: without_the_setting_syns_are_sent_twice },
    Case { name: "source_ports_are_free_again_soon", run: source_ports_are_free_again_soon },
];

const CLIENTS: usize = 16;
const DESTINATIONS: usize = 5000;
/// A SYN that gets no answer is sent again after a second (RFC 6298 section 2).
const STALL: Duration = Duration::from_millis(900);

/// Measurements, of which all but the last may be spoilt.
const ATTEMPTS: usize = 3;

fn short_connections_do_not_stall() {
    prepare_loopback().unwrap();
    put_in_place(&Spec::run());
    for attempt in 1..=ATTEMPTS {
        let (before, lost_before) = (counted("TCPSynRetrans"), lost_insertions());
        let stalled = both_halves();
        // Not the kernel's count of old duplicates: a late segment of a closed connection is one too, and delays nobody.
        // And not the wait alone: some kernels answer an old duplicate, after which its client tries again in milliseconds.
        let (twice, lost) = (counted("TCPSynRetrans") - before, lost_insertions() - lost_before);
        // Two SYNs of one source port that leave two CPUs at the same instant are one four-tuple behind the redirect;
        // conntrack drops the later one and counts it (ADR 3). Nothing else excuses a SYN.
        if twice > 0 && twice <= lost && stalled <= lost && attempt < ATTEMPTS {
            eprintln!(
                "measuring again: conntrack lost {lost} insertions to the other CPU, {twice} SYNs were sent twice"
            );
            continue;
        }
        assert_eq!(
            (twice, stalled),
            (0, 0),
            "SYNs sent twice, connections that waited; {lost} lost insertions"
        );
        return;
    }
}

/// The negative control.
fn without_the_setting_syns_are_sent_twice() {
    prepare_loopback().unwrap();
    std::fs::write("/proc/sys/net/ipv4/tcp_timestamps", "1").unwrap();
    put_in_place(&Spec::run());
    both_halves();
    // What conntrack drops by itself shows nothing of the setting.
    let (twice, lost) = (counted("TCPSynRetrans"), lost_insertions());
    assert!(twice > 20 + lost, "{twice}, {lost} of them lost insertions");
}

/// 20,000 connections: the proxy's TIME_WAITs of the first half are what the second half meets. Returns how many stalled.
fn both_halves() -> u64 {
    [Closes::Proxy, Closes::Client].map(|first| short_connections(10_000, first)).iter().sum()
}

/// Short connections to one destination, this side closing first as the proxy does, from a handful of source ports.
fn source_ports_are_free_again_soon() {
    prepare_loopback().unwrap();
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40007").unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 4000)).unwrap();
    let used_up = |patience: Duration| {
        let started = Instant::now();
        let mut made = 0;
        loop {
            match dial(listener.local_addr().unwrap()) {
                Ok(near) => {
                    let (mut far, _) = listener.accept().unwrap();
                    drop(near);
                    assert_eq!(far.read(&mut [0; 1]).unwrap(), 0);
                    made += 1;
                }
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL)),
            }
            if made > 16 || started.elapsed() > patience {
                return made <= 16;
            }
        }
    };
    // The negative control: on loopback the kernel's default is to reuse.
    std::fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "0").unwrap();
    assert!(used_up(Duration::from_secs(3)));
    sidegate_proxy::redirect::sysctl::tune().reuse.unwrap();
    assert!(!used_up(Duration::from_secs(30)));
}

/// Who closes first, and keeps the TIME_WAIT.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Closes {
    Proxy,
    Client,
}

/// Makes connections one after another on every client; how many had to wait.
fn short_connections(count: usize, first: Closes) -> u64 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, OUTBOUND_PORT)).unwrap();
    let (here, next, served) = (Netns::current(), AtomicUsize::new(0), AtomicUsize::new(0));
    let client = || {
        let mut stalled = 0;
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return stalled;
            }
            let address =
                Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(198, 51, 0, 0)) + (index % DESTINATIONS) as u32);
            let started = Instant::now();
            let mut stream = dial((address, 443).into()).unwrap();
            stalled += u64::from(started.elapsed() >= STALL);
            let _ = stream.read(&mut [0; 1]);
            if first == Closes::Proxy {
                let _ = stream.read(&mut [0; 1]);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while served.fetch_add(1, Ordering::Relaxed) < count {
                    let (mut stream, _) = listener.accept().unwrap();
                    let _ = stream.write_all(b"x");
                    if first == Closes::Client {
                        let _ = stream.read(&mut [0; 1]);
                    }
                }
            });
        }
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| here.run(client))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    })
}

/// A `TcpExt` counter of this namespace; 0 where this kernel has none of that name.
fn counted(wanted: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut pairs = names.split(' ').zip(values.split(' '));
    pairs.find(|(name, _)| *name == wanted).map_or(0, |(_, value)| value.parse().unwrap())
}

/// Flows that conntrack did not take in, and whose packets it dropped, since another CPU had just taken in the same
/// four-tuple: `insert_failed` of this namespace, summed over the CPUs. 0 where this kernel does not tell, which excuses
/// nothing.
fn lost_insertions() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/stat/nf_conntrack").unwrap_or_default();
    let mut lines = text.lines().map(str::split_whitespace);
    let Some(column) = lines.next().and_then(|mut names| names.position(|name| name == "insert_failed"))
    else {
        return 0;
    };
    lines.map(|mut counts| u64::from_str_radix(counts.nth(column).unwrap(), 16).unwrap()).sum()
}
