//! The rules as typed values, printed as nft text and encoded for the kernel from one and the same model.

mod encode;
mod expression;
mod inet;
mod netdev;
mod text;
mod udp;

pub(crate) use encode::{Element, encode_changes, encode_elements, encode_removal, encode_tables, nft};
pub(crate) use inet::{PRIORITY_NAT, REFUSE};

use super::Spec;

/// The name of every table of ours, in whatever family.
pub(crate) const TABLE: &str = "sidegate";

/// Every rule that a [`Spec`] asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The first wall: redirects and refuses packets.
    pub(crate) inet: Table,
    /// The second wall, where there are devices to guard: frames that never went through the first one.
    pub(crate) netdev: Option<Table>,
}

impl Plan {
    /// The rules for `spec`; `devices` are the names of the links that lead out, all but `lo`.
    pub fn new(spec: &Spec, devices: &[String]) -> Plan {
        Plan { inet: inet::table(spec), netdev: (!devices.is_empty()).then(|| netdev::table(devices)) }
    }

    /// The sets of allowed datagram destinations, to replace alone.
    pub(crate) fn udp_sets(&self) -> Vec<Set> {
        self.inet.sets.iter().filter(|set| matches!(set, Set::Destinations(..))).cloned().collect()
    }

    /// Without the second wall, where the kernel does not have it.
    pub(crate) fn first_wall_only(self) -> Plan {
        Plan { netdev: None, ..self }
    }

    pub(crate) fn tables(&self) -> impl Iterator<Item = &Table> {
        std::iter::once(&self.inet).chain(&self.netdev)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Inet,
    Netdev,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) family: Family,
    pub(crate) sets: Vec<Set>,
    pub(crate) chains: Vec<Chain>,
}

/// A named set and its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Set {
    /// Single ports.
    Ports(SetName, Vec<u16>),
    /// Address ranges with port ranges, disjoint.
    Destinations(SetName, Vec<udp::Block>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetName {
    /// Ports of the proxy that the workload may not reach.
    Closed,
    /// Allowed datagram destinations over IPv4.
    Udp4,
    /// Allowed datagram destinations over IPv6.
    Udp6,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    /// Where the kernel calls it; `None`: only from other chains.
    pub(crate) base: Option<Base>,
    pub(crate) rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) kind: ChainKind,
    pub(crate) hook: Hook,
    pub(crate) priority: i32,
    pub(crate) policy_drop: bool,
    /// For netdev chains.
    pub(crate) devices: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChainKind {
    Filter,
    Nat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
    Egress,
}

/// Expressions that must all match, in order, and what then happens; why, for whoever reads the ruleset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) why: &'static str,
    pub(crate) body: Vec<Expr>,
}

pub(crate) fn rule(why: &'static str, body: impl Into<Vec<Expr>>) -> Rule {
    Rule { why, body: body.into() }
}

/// One condition or effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expr {
    /// The packet is IPv4 or IPv6.
    Ip(IpVersion),
    /// The transport protocol's number.
    L4(L4),
    /// The transport destination port.
    DestinationPort(u16),
    /// The transport destination port is one of a set.
    DestinationPortIn(SetName),
    /// Destination address and port are in a set.
    DestinationIn(SetName),
    /// The destination is an IPv6 link-local address (fe80::/10). Comes after [`Expr::Ip`].
    LinkLocal,
    /// ICMPv6 types, inclusive.
    Icmpv6Types(u8, u8),
    /// The destination (or source) address is local to this namespace, or is not.
    Local(End, bool),
    /// It came in over (or goes out over) `lo`, or does not.
    Loopback(Way, bool),
    /// Conntrack state, any of the mask.
    CtState(u32),
    /// The flow's destination was translated, or was not.
    CtTranslated(bool),
    /// The packet goes as the flow's first one did, or comes back.
    CtDirection(Direction),
    /// The flow carries this mark.
    CtMark(u32),
    /// A socket of this user sent it. A packet without a socket never matches.
    Owner(u32),
    /// A socket of another user sent it. A packet without a socket never matches.
    OwnerNot(u32),
    /// Some user's socket sent it, not the kernel itself.
    Owned,
    /// The frame was routed by the IP stack, hence judged by the first wall; a packet socket's frames never are.
    Routed,
    /// EtherType of the frame.
    EtherType(u16),
    /// Marks the flow.
    SetCtMark(u32),
    /// Counts packets and bytes.
    Counter,
    /// Goes on only up to a rate per second, with a burst.
    Limit(u32, u32),
    /// Tells user space over NFLOG.
    Log(u16),
    /// Translates the destination to this port of this host.
    Redirect(u16),
    /// Answers with a TCP reset.
    RejectReset,
    /// Answers with ICMP "administratively prohibited".
    RejectProhibited,
    Accept,
    Drop,
    Return,
    Goto(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IpVersion {
    V4,
    V6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum L4 {
    Tcp,
    Udp,
    Icmpv6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Source,
    Destination,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    In,
    Out,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Original,
    Reply,
}

#[cfg(test)]
mod tests;
