//! The plan as `nft` reads and prints it.

use std::fmt::{self, Display, Formatter};

use super::{
    Base, Chain, ChainKind, Direction, End, Expr, Family, Hook, IpVersion, L4, Plan, Set, SetName, TABLE,
    Table, Way, udp::Block,
};
use crate::redirect::netlink::uapi::{
    CT_STATE_ESTABLISHED, CT_STATE_INVALID, CT_STATE_NEW, CT_STATE_RELATED,
};

impl Display for Plan {
    /// A file for `nft -f`: replaces the tables in one transaction.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for table in self.tables() {
            let family = table.family;
            writeln!(f, "table {family} {TABLE}\ndelete table {family} {TABLE}\n{table}")?;
        }
        Ok(())
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {TABLE} {{", self.family)?;
        for set in &self.sets {
            write!(f, "{set}")?;
        }
        for chain in &self.chains {
            write!(f, "{chain}")?;
        }
        writeln!(f, "}}")
    }
}

impl Display for Set {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (name, kind, elements): (_, _, Vec<String>) = match self {
            Set::Ports(name, ports) => {
                (name, "type inet_service", ports.iter().map(u16::to_string).collect())
            }
            Set::Destinations(name @ SetName::Udp6, blocks) => (
                name,
                "type ipv6_addr . inet_service\n\t\tflags interval",
                blocks.iter().map(block).collect(),
            ),
            Set::Destinations(name, blocks) => (
                name,
                "type ipv4_addr . inet_service\n\t\tflags interval",
                blocks.iter().map(block).collect(),
            ),
        };
        writeln!(f, "\tset {name} {{\n\t\t{kind}")?;
        if !elements.is_empty() {
            writeln!(f, "\t\telements = {{ {} }}", elements.join(", "))?;
        }
        writeln!(f, "\t}}\n")
    }
}

fn block(block: &Block) -> String {
    let net = match block.net {
        net if net.prefix_len() == net.max_prefix_len() => net.addr().to_string(),
        net => net.to_string(),
    };
    match (block.ports.start(), block.ports.end()) {
        (from, to) if from == to => format!("{net} . {from}"),
        (from, to) => format!("{net} . {from}-{to}"),
    }
}

impl Display for Chain {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "\tchain {} {{", self.name)?;
        if let Some(base) = &self.base {
            writeln!(f, "\t\t{base}")?;
        }
        for rule in &self.rules {
            let body: Vec<String> = rule.body.iter().map(Expr::to_string).collect();
            write!(f, "\t\t{}", body.join(" "))?;
            match rule.why {
                "" => writeln!(f)?,
                why => writeln!(f, " comment \"{why}\"")?,
            }
        }
        writeln!(f, "\t}}\n")
    }
}

impl Display for Base {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
        };
        let hook = match self.hook {
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Forward => "forward",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
            Hook::Egress => "egress",
        };
        write!(f, "type {kind} hook {hook} ")?;
        if !self.devices.is_empty() {
            let names: Vec<String> = self.devices.iter().map(|name| format!("\"{name}\"")).collect();
            write!(f, "devices = {{ {} }} ", names.join(", "))?;
        }
        let policy = if self.policy_drop { "drop" } else { "accept" };
        write!(f, "priority {}; policy {policy};", self.priority)
    }
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let not = |is: bool| if is { "" } else { "!= " };
        match *self {
            Expr::Ip(IpVersion::V4) => f.write_str("meta nfproto ipv4"),
            Expr::Ip(IpVersion::V6) => f.write_str("meta nfproto ipv6"),
            Expr::L4(protocol) => write!(f, "meta l4proto {protocol}"),
            Expr::DestinationPort(port) => write!(f, "th dport {port}"),
            Expr::DestinationPortIn(set) => write!(f, "th dport @{set}"),
            Expr::DestinationIn(set @ SetName::Udp6) => write!(f, "ip6 daddr . udp dport @{set}"),
            Expr::DestinationIn(set) => write!(f, "ip daddr . udp dport @{set}"),
            Expr::LinkLocal => f.write_str("ip6 daddr fe80::/10"),
            Expr::Icmpv6Types(from, to) if from == to => write!(f, "icmpv6 type {from}"),
            Expr::Icmpv6Types(from, to) => write!(f, "icmpv6 type {from}-{to}"),
            Expr::Local(End::Source, is) => write!(f, "fib saddr type {}local", not(is)),
            Expr::Local(End::Destination, is) => write!(f, "fib daddr type {}local", not(is)),
            Expr::Loopback(Way::In, is) => write!(f, "iif {}\"lo\"", not(is)),
            Expr::Loopback(Way::Out, is) => write!(f, "oif {}\"lo\"", not(is)),
            Expr::CtState(mask) => write!(f, "ct state {}", states(mask)),
            Expr::CtTranslated(true) => f.write_str("ct status dnat"),
            Expr::CtTranslated(false) => f.write_str("ct status ! dnat"),
            Expr::CtDirection(Direction::Original) => f.write_str("ct direction original"),
            Expr::CtDirection(Direction::Reply) => f.write_str("ct direction reply"),
            Expr::CtMark(mark) => write!(f, "ct mark {mark:#010x}"),
            Expr::Owner(uid) => write!(f, "meta skuid {uid}"),
            Expr::OwnerNot(uid) => write!(f, "meta skuid != {uid}"),
            Expr::Owned => f.write_str("meta skuid >= 0"),
            Expr::Routed => f.write_str("meta rtclassid >= 0"),
            Expr::EtherType(kind) => write!(f, "meta protocol {kind:#06x}"),
            Expr::SetCtMark(mark) => write!(f, "ct mark set {mark:#010x}"),
            Expr::Counter => f.write_str("counter"),
            Expr::Limit(rate, burst) => write!(f, "limit rate {rate}/second burst {burst} packets"),
            Expr::Log(group) => write!(f, "log group {group} snaplen {}", super::expression::SNAPLEN),
            Expr::Redirect(port) => write!(f, "redirect to :{port}"),
            Expr::RejectReset => f.write_str("reject with tcp reset"),
            Expr::RejectProhibited => f.write_str("reject with icmpx admin-prohibited"),
            Expr::Accept => f.write_str("accept"),
            Expr::Drop => f.write_str("drop"),
            Expr::Return => f.write_str("return"),
            Expr::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

fn states(mask: u32) -> String {
    let named = [
        (CT_STATE_INVALID, "invalid"),
        (CT_STATE_ESTABLISHED, "established"),
        (CT_STATE_RELATED, "related"),
        (CT_STATE_NEW, "new"),
    ];
    let names: Vec<_> = named.iter().filter(|(bit, _)| mask & bit != 0).map(|(_, name)| *name).collect();
    names.join(",")
}

impl Display for Family {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Inet => "inet",
            Family::Netdev => "netdev",
        })
    }
}

impl Display for L4 {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            L4::Tcp => "tcp",
            L4::Udp => "udp",
            L4::Icmpv6 => "ipv6-icmp",
        })
    }
}

impl SetName {
    /// The name in the kernel.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            SetName::Closed => "closed",
            SetName::Udp4 => "udp4",
            SetName::Udp6 => "udp6",
        }
    }
}

impl Display for SetName {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
