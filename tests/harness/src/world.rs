//! The world outside: a second namespace that answers for every address and sees every frame.

use std::{
    io::Read,
    net::{Ipv4Addr, Ipv6Addr, UdpSocket},
    sync::mpsc,
    thread,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::{Netns, ip};

/// The workload's addresses on `app0`.
pub const APP_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// The same for IPv6.
pub const APP_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);
/// The world's addresses on the same wire.
pub const WORLD_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The same for IPv6.
pub const WORLD_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
/// Datagrams to this port of the world are fences; the rules under test must allow them.
pub const FENCE_PORT: u16 = 9;

const ETHERTYPE_ALL: u16 = 3;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const PATIENCE: Duration = Duration::from_millis(500);
const TRIES: usize = 20;
/// What test payloads begin with: a frame with it is never upkeep.
const CANARY: &[u8] = b"canary";

/// The namespace at the other end of the wire.
#[derive(Debug)]
pub struct World {
    netns: Netns,
    tap: Socket,
    fence: UdpSocket,
    fences: u64,
}

/// A frame that reached the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame(Vec<u8>);

impl World {
    /// Connects the caller's namespace by `app0` (the default route) to a fresh one with `world0`.
    pub fn new() -> World {
        let netns = Netns::new();
        // A thread of the new namespace must live while `ip` moves the device there.
        let (tell, told) = mpsc::channel::<i32>();
        let (leave, left) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let netns = &netns;
            scope.spawn(move || {
                netns.run(move || {
                    tell.send(rustix::thread::gettid().as_raw_nonzero().get()).expect("the test waits");
                    let _ = left.recv();
                });
            });
            let there = told.recv().expect("the thread tells");
            ip(&format!(
                "link add app0 address 02:00:00:00:00:02 type veth peer name world0 address 02:00:00:00:00:01 netns {there}"
            ));
            drop(leave);
        });
        ip(&format!("address add {APP_V4}/24 dev app0"));
        ip(&format!("address add {APP_V6}/64 dev app0 nodad"));
        ip("link set app0 up");
        // Known neighbours: a frame that waits for ARP would be overtaken by the fence.
        for world in [WORLD_V4.to_string(), WORLD_V6.to_string()] {
            ip(&format!("neighbour add {world} lladdr 02:00:00:00:00:01 dev app0 nud permanent"));
        }
        netns.run(|| {
            ip(&format!("address add {WORLD_V4}/24 dev world0"));
            ip(&format!("address add {WORLD_V6}/64 dev world0 nodad"));
            ip("link set world0 up");
            for app in [APP_V4.to_string(), APP_V6.to_string()] {
                ip(&format!("neighbour add {app} lladdr 02:00:00:00:00:02 dev world0 nud permanent"));
            }
            // Every address of the internet is here.
            ip("route add local 198.51.100.0/24 dev lo");
            ip("-6 route add local 2001:db8::/32 dev lo");
        });
        ip(&format!("route add default via {WORLD_V4}"));
        ip(&format!("-6 route add default via {WORLD_V6}"));
        let tap = netns.run(tap);
        let fence = UdpSocket::bind((APP_V4, 0)).expect("a fence socket");
        World { netns, tap, fence, fences: 0 }
    }

    /// Calls `work` on a thread in the world.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.netns.run(work)
    }

    /// Every frame that reached the world since the last call, without ARP and the kernel's own neighbour and multicast
    /// messages. Sends a fence and reads up to it: the wire keeps the order.
    pub fn frames(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        let mut buffer = vec![0; 65_536];
        // A fence that finds the tap's buffer full is lost; the next one is not.
        for _ in 0..TRIES {
            self.fences += 1;
            let mark = format!("fence {};", self.fences);
            self.fence.send_to(mark.as_bytes(), (WORLD_V4, FENCE_PORT)).expect("the fence is let through");
            while let Ok(length) = (&self.tap).read(&mut buffer) {
                let frame = Frame(buffer[..length].to_vec());
                if frame.contains(mark.as_bytes()) {
                    return frames;
                }
                if !frame.is_upkeep() {
                    frames.push(frame);
                }
            }
        }
        panic!("no fence arrived in {TRIES} tries");
    }
}

impl Default for World {
    fn default() -> Self {
        World::new()
    }
}

/// A packet socket that sees what comes in over `world0`.
fn tap() -> Socket {
    let all = Protocol::from(i32::from(ETHERTYPE_ALL.to_be()));
    let tap = Socket::new(Domain::PACKET, Type::RAW, Some(all)).expect("a packet socket");
    tap.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let _ = tap.set_recv_buffer_size(64 << 20);
    tap
}

impl Frame {
    /// Whether these bytes are in it.
    pub fn contains(&self, bytes: &[u8]) -> bool {
        self.0.windows(bytes.len()).any(|window| window == bytes)
    }

    /// The whole frame.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// ARP, neighbour discovery, multicast listening, and what the world itself sent; fences.
    fn is_upkeep(&self) -> bool {
        let from_world = self.0.get(6..12) == Some(&[2, 0, 0, 0, 0, 1]);
        let looped = self.0.get(0..12) == Some(&[0; 12]);
        let kind = self.0.get(12..14).map(|kind| u16::from_be_bytes([kind[0], kind[1]]));
        let icmpv6 = match (self.0.get(20), self.0.get(40)) {
            (Some(58), _) => self.0.get(54),
            // Multicast listening comes behind a hop-by-hop header of 8 bytes.
            (Some(0), _) => self.0.get(62),
            _ => None,
        };
        let neighbour = kind == Some(ETHERTYPE_IPV6) && icmpv6.is_some_and(|kind| (130..=143).contains(kind));
        let arp = kind == Some(ETHERTYPE_ARP) && self.0.len() <= 42;
        let fence = self.contains(b"fence ");
        from_world || ((looped || neighbour || arp || fence) && !self.contains(CANARY))
    }
}
