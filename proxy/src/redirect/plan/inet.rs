//! The first wall: `table inet sidegate`.
//!
//! What is easy to get wrong here:
//! - After a redirect the output hook still sees the old output interface, so "goes to `lo`" can't be asked there;
//!   "the destination is local" can, and the postrouting hook, where the interface is true, checks the promise.
//! - Resets and ICMP errors made by `reject` pass these chains themselves. They belong to a flow (related) and go to
//!   a local address, though their source is foreign.
//! - Some packets have no socket (TIME_WAIT, resets): no owner matches them, so they follow their flow's mark.
//! - A TCP socket that dials an IPv6 link-local address is bound to the device of its scope: translated to `::1`, its SYN
//!   would still go to the wire.
//! - A flow counts as arrived from outside only if its first packet came in over a real interface. A workload can
//!   send itself a packet with a foreign source (IPV6_FREEBIND needs no privilege), and the "reply" would leave.

use super::{
    super::{Spec, spec::Exempt},
    Base, Chain, ChainKind,
    Direction::*,
    End::*,
    Expr::*,
    Family, Hook,
    IpVersion::*,
    L4::*,
    Rule, Set, SetName, Table,
    Way::*,
    rule, udp,
};
use crate::redirect::netlink::uapi::{
    CT_STATE_ESTABLISHED, CT_STATE_INVALID, CT_STATE_NEW, CT_STATE_RELATED,
};

/// Flows that the exempt user opened.
pub(super) const MARK_EXEMPT: u32 = 0x5de6_0001;
/// Flows that came in from outside.
pub(super) const MARK_ARRIVED: u32 = 0x5de6_0002;

/// Before every other destination translation (-100), after conntrack (-200).
pub(crate) const PRIORITY_NAT: i32 = -150;
const PRIORITY_FILTER: i32 = 0;
/// After every source translation (100).
const PRIORITY_LAST: i32 = 300;

/// Refusals told to user space: packets a second, and burst.
const LOG_RATE: (u32, u32) = (50, 100);

const DNS: u16 = 53;
/// The chain that refuses, and counts what it refuses.
pub(crate) const REFUSE: &str = "refuse";

pub(super) fn table(spec: &Spec) -> Table {
    let mut closed = vec![spec.outbound, spec.dns];
    closed.extend(spec.inbound);
    closed.extend(&spec.services);
    closed.sort_unstable();
    closed.dedup();
    let (udp4, udp6) = udp::blocks(&spec.udp);
    let mut chains =
        vec![refuse(spec), dial(spec), leave(spec), wire(), through(), mark_arrivals(), arrive(spec)];
    chains.extend(spec.inbound.map(|port| serve(spec, port)));
    Table {
        family: Family::Inet,
        sets: vec![
            Set::Ports(SetName::Closed, closed),
            Set::Destinations(SetName::Udp4, udp4),
            Set::Destinations(SetName::Udp6, udp6),
        ],
        chains,
    }
}

/// Where connections of the workload go: to the proxy.
fn dial(spec: &Spec) -> Chain {
    let mut rules = Vec::new();
    if let Exempt::Uid(uid) = spec.exempt {
        rules.push(rule("the proxy dials by itself", [Owner(uid), Return]));
    }
    let local = rule("between processes of the workload", [Local(Destination, true), Return]);
    // Its socket is bound to the device, and would be redirected onto the wire. So it is left for `leave` to refuse.
    rules.push(rule("no redirect from a device", [Ip(V6), L4(Tcp), LinkLocal, Return]));
    let dns = [
        rule("DNS, whichever resolver was meant", [L4(Udp), DestinationPort(DNS), Redirect(spec.dns)]),
        rule("DNS, whichever resolver was meant", [L4(Tcp), DestinationPort(DNS), Redirect(spec.dns)]),
    ];
    if spec.loopback_dns {
        rules.extend(dns);
        rules.push(local);
    } else {
        rules.push(local);
        rules.extend(dns);
    }
    rules.push(rule("all TCP", [L4(Tcp), Redirect(spec.outbound)]));
    base("dial", ChainKind::Nat, Hook::Output, PRIORITY_NAT, rules)
}

/// What may leave a socket. Denies by policy. Flows that are known come first: asking whether an address is local costs
/// a route lookup.
fn leave(spec: &Spec) -> Chain {
    let mut rules = vec![rule("belongs to no flow", [CtState(CT_STATE_INVALID), Counter, Drop])];
    if let Exempt::Uid(uid) = spec.exempt {
        rules.extend([
            rule("a stranger in the proxy's flow", [CtMark(MARK_EXEMPT), OwnerNot(uid), Goto(REFUSE)]),
            rule("the proxy's flows, the kernel's packets in them too", [CtMark(MARK_EXEMPT), Accept]),
        ]);
    }
    if let (Exempt::Uid(uid), Some(_)) = (spec.exempt, spec.inbound) {
        // All of them were led to the proxy: nobody else has anything to say in one.
        let stranger = [L4(Tcp), CtDirection(Reply), CtMark(MARK_ARRIVED), OwnerNot(uid), Goto(REFUSE)];
        rules.push(rule("a stranger in an arrived flow", stranger));
    }
    rules.extend([
        rule("answers to who came from outside", [CtDirection(Reply), CtMark(MARK_ARRIVED), Accept]),
        rule(
            "redirected flows",
            [CtState(CT_STATE_ESTABLISHED), CtTranslated(true), Local(Destination, true), Accept],
        ),
    ]);
    if let Exempt::Uid(uid) = spec.exempt {
        rules.push(rule("the proxy to its neighbours", [Owner(uid), Local(Destination, true), Accept]));
    }
    rules.extend(closed_ports());
    rules.extend([
        rule(
            "local flows, and errors about any",
            [CtState(CT_STATE_ESTABLISHED | CT_STATE_RELATED), Local(Destination, true), Accept],
        ),
        rule("between processes of the workload", [Local(Destination, true), Local(Source, true), Accept]),
    ]);
    if let Exempt::Uid(uid) = spec.exempt {
        rules.extend(exempt(uid));
    }
    rules.extend([
        rule("a forged neighbour message", [Ip(V6), L4(Icmpv6), Icmpv6Types(130, 143), Owned, Goto(REFUSE)]),
        rule("multicast listening, neighbour discovery", [Ip(V6), L4(Icmpv6), Icmpv6Types(131, 136), Accept]),
        rule("multicast listening, version 2", [Ip(V6), L4(Icmpv6), Icmpv6Types(143, 143), Accept]),
        rule("allowed datagrams", [Ip(V4), L4(Udp), DestinationIn(SetName::Udp4), Accept]),
        rule("allowed datagrams", [Ip(V6), L4(Udp), DestinationIn(SetName::Udp6), Accept]),
        rule("everything else", [Goto(REFUSE)]),
    ]);
    base("leave", ChainKind::Filter, Hook::Output, PRIORITY_FILTER, rules)
}

fn closed_ports() -> [Rule; 2] {
    [Tcp, Udp].map(|protocol| {
        rule(
            "the proxy's ports, except by redirect",
            [
                L4(protocol),
                CtDirection(Original),
                CtTranslated(false),
                DestinationPortIn(SetName::Closed),
                Local(Destination, true),
                Goto(REFUSE),
            ],
        )
    })
}

/// Flows that the proxy opens. The packet mark is never looked at: whoever may set it could forge it.
fn exempt(uid: u32) -> [Rule; 2] {
    [Tcp, Udp].map(|protocol| {
        rule(
            "the proxy opens a flow",
            [L4(protocol), Owner(uid), CtDirection(Original), SetCtMark(MARK_EXEMPT), Accept],
        )
    })
}

/// Refuses so that the application sees an error at once.
fn refuse(spec: &Spec) -> Chain {
    let mut rules = Vec::new();
    if let Some(group) = spec.nflog_group {
        rules.push(rule("for the access record", [Limit(LOG_RATE.0, LOG_RATE.1), Log(group)]));
    }
    rules.extend([rule("", [L4(Tcp), Counter, RejectReset]), rule("", [Counter, RejectProhibited])]);
    Chain { name: REFUSE, base: None, rules }
}

/// Where the true output interface is known: what was let through as local must not reach a wire
/// (SO_BINDTODEVICE sends 127.0.0.1 to the gateway).
fn wire() -> Chain {
    let rules = vec![rule(
        "a local address on a wire",
        [Loopback(Out, false), Local(Destination, true), Counter, Drop],
    )];
    let mut chain = base("wire", ChainKind::Filter, Hook::Postrouting, PRIORITY_LAST, rules);
    accept_by_default(&mut chain);
    chain
}

/// Nothing is routed through a workload's namespace.
fn through() -> Chain {
    let rules = vec![rule("nothing is routed through", [Counter, Drop])];
    base("through", ChainKind::Filter, Hook::Forward, PRIORITY_FILTER, rules)
}

/// Remembers which flows came from outside.
fn mark_arrivals() -> Chain {
    let rules = vec![rule(
        "came from outside",
        [Loopback(In, false), CtState(CT_STATE_NEW), CtDirection(Original), SetCtMark(MARK_ARRIVED)],
    )];
    let mut chain = base("arrivals", ChainKind::Filter, Hook::Prerouting, PRIORITY_NAT, rules);
    accept_by_default(&mut chain);
    chain
}

/// The outbound and DNS listeners are for redirected traffic of this namespace only.
fn arrive(spec: &Spec) -> Chain {
    let shut = |protocol, port| {
        rule(
            "not for outsiders",
            [Loopback(In, false), L4(protocol), DestinationPort(port), CtDirection(Original), Counter, Drop],
        )
    };
    let rules = vec![shut(Tcp, spec.outbound), shut(Tcp, spec.dns), shut(Udp, spec.dns)];
    let mut chain = base("arrive", ChainKind::Filter, Hook::Input, PRIORITY_FILTER, rules);
    accept_by_default(&mut chain);
    chain
}

/// Connections from outside: to the proxy's inbound listener.
fn serve(spec: &Spec, inbound: u16) -> Chain {
    let _ = spec;
    let rules = vec![
        rule("between processes of the workload", [Loopback(In, true), Return]),
        rule("the proxy's own services", [L4(Tcp), DestinationPortIn(SetName::Closed), Return]),
        rule("all TCP", [L4(Tcp), Local(Destination, true), Redirect(inbound)]),
    ];
    base("serve", ChainKind::Nat, Hook::Prerouting, PRIORITY_NAT, rules)
}

fn base(name: &'static str, kind: ChainKind, hook: Hook, priority: i32, rules: Vec<Rule>) -> Chain {
    // A NAT chain only ever chooses; filter chains deny by default.
    let policy_drop = kind == ChainKind::Filter;
    Chain { name, base: Some(Base { kind, hook, priority, policy_drop, devices: Vec::new() }), rules }
}

fn accept_by_default(chain: &mut Chain) {
    if let Some(base) = &mut chain.base {
        base.policy_drop = false;
    }
}
