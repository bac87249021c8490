//! The second wall: `table netdev sidegate`, at the egress of every device.
//!
//! Frames from packet sockets (AF_PACKET) never pass the `inet` hooks. They carry no route, packets of the IP stack
//! always do, and no option of a packet socket can change that; a packet mark, by contrast, is the sender's to choose.
//! ARP is left to the kernel, whose own ARP has no socket.

use super::{Base, Chain, ChainKind, Expr::*, Family, Hook, Table, rule};

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;

pub(super) fn table(devices: &[String]) -> Table {
    let rules = vec![
        rule("judged by the inet table", [EtherType(ETHERTYPE_IPV4), Routed, Accept]),
        rule("judged by the inet table", [EtherType(ETHERTYPE_IPV6), Routed, Accept]),
        rule("a forged ARP frame", [EtherType(ETHERTYPE_ARP), Owned, Counter, Drop]),
        rule("the kernel's ARP", [EtherType(ETHERTYPE_ARP), Accept]),
        rule("a frame past the IP stack", [Counter, Drop]),
    ];
    let base = Base {
        kind: ChainKind::Filter,
        hook: Hook::Egress,
        priority: 0,
        policy_drop: true,
        devices: devices.to_vec(),
    };
    Table {
        family: Family::Netdev,
        sets: Vec::new(),
        chains: vec![Chain { name: "frame", base: Some(base), rules }],
    }
}
