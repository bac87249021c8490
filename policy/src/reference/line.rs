//! One rule of a document, and how far a request comes in it.

use std::{cmp::Reverse, net::IpAddr, ops::RangeInclusive};

use ipnet::IpNet;

use crate::{
    Arrival, CompileOptions, Date, Demands, Direction, Document, HostEvidence, HostPattern, Observed,
    Predicate, Reason, Request, Treatment,
    decision::{Dial, TlsMode},
    deny_table::{Grant, Opening, denied_answer},
    document::{Action, Destination, HttpMatch, Origin, Protocol, Rule},
    spiffe::SpiffeSpecificity,
};

use super::Name;

/// Exact host, longest wildcard, workload, group, longest prefix: later variants are more specific.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Specificity {
    Prefix(u8),
    Group(u8),
    Workload(SpiffeSpecificity),
    /// Labels of the suffix, and whether it matches just one label.
    Wildcard(usize, bool),
    Exact,
}

/// A rule of either direction.
pub(super) struct Line<'a> {
    pub(super) document: &'a Document,
    pub(super) action: Action,
    pub(super) ends: Vec<Destination>,
    pub(super) ports: &'a [RangeInclusive<u16>],
    pub(super) audit_until: Option<Date>,
    name: &'a str,
    protocol: Protocol,
    tls: TlsMode,
    direction: Direction,
    demands: &'a Demands,
    http: &'a [HttpMatch],
}

/// What came of an allow rule for a request that one of its ends holds.
pub(super) struct Trial {
    pub(super) at: Specificity,
    pub(super) rule: Reverse<Name>,
    pub(super) treatment: Treatment,
    /// Requests a second that the rule allows.
    pub(super) rate: u32,
    /// The first part that fails, and why.
    pub(super) lack: Option<(Predicate, Reason)>,
    /// The rule is in audit, which tolerates what fails: with that reason, carried so.
    pub(super) tolerated: Option<(Reason, Treatment)>,
}

impl Trial {
    /// The order in which the parts of a rule are looked at.
    pub(super) fn how_far(&self) -> Option<usize> {
        use Predicate::{Destination, Except, Http, Port, Protocol, Tls};
        let (lack, _) = self.lack?;
        [Except, Port, Protocol, Destination, Tls, Http].iter().position(|predicate| *predicate == lack)
    }
}

impl<'a> Line<'a> {
    pub(super) fn of_document(document: &'a Document, direction: Direction) -> Vec<Self> {
        match direction {
            Direction::Egress => document
                .egress
                .iter()
                .map(|rule| Line::new(document, rule, direction, Destination::clone))
                .collect(),
            Direction::Ingress => {
                document.ingress.iter().map(|rule| Line::new(document, rule, direction, origin)).collect()
            }
        }
    }

    fn new<T>(
        document: &'a Document,
        rule: &'a Rule<T>,
        direction: Direction,
        end: fn(&T) -> Destination,
    ) -> Self {
        Line {
            document,
            action: rule.action,
            ends: rule.ends.iter().map(|one| end(&one.value)).collect(),
            ports: &rule.ports,
            audit_until: rule.audit_until,
            name: &rule.name.value,
            protocol: rule.protocol,
            tls: rule.tls,
            direction,
            demands: &rule.demands,
            http: &rule.http,
        }
    }

    pub(super) fn name(&self) -> Name {
        (self.document.name.value.clone(), self.name.to_owned())
    }

    pub(super) fn has_port(&self, port: u16) -> bool {
        self.ports.iter().any(|range| range.contains(&port))
    }

    pub(super) fn grants(&self) -> impl Iterator<Item = Grant> {
        let grants = self.ends.iter().flat_map(|end| match end {
            Destination::Grants(grants) => grants.as_slice(),
            _ => &[],
        });
        grants.copied()
    }

    /// What the rule's grants open.
    pub(super) fn openings(&self) -> impl Iterator<Item = &'static Opening> {
        self.grants().flat_map(Grant::openings)
    }

    fn ends_tls(&self) -> bool {
        self.tls == TlsMode::Terminate && self.direction == Direction::Ingress
    }

    pub(super) fn is_meshed(&self) -> bool {
        self.tls == TlsMode::Mesh
    }

    pub(super) fn hosts(&self) -> impl Iterator<Item = &HostPattern> {
        self.ends.iter().flat_map(|end| match end {
            Destination::Hosts { hosts, .. } => hosts.as_slice(),
            _ => &[],
        })
    }

    /// A deny rule without `protocol` covers every protocol.
    pub(super) fn denies_protocol(&self, request: &Request<'_>) -> bool {
        match self.protocol {
            Protocol::Tls => true,
            Protocol::Http => request.observed == Observed::Http || request.http.is_some(),
            Protocol::Tcp => request.observed != Observed::Udp,
            Protocol::Udp => request.observed == Observed::Udp,
        }
    }

    /// `None`: that can be told only within requests.
    pub(super) fn http_matches(&self, request: &Request<'_>) -> Option<bool> {
        if self.http.is_empty() {
            return Some(true);
        }
        let facts = request.http?;
        let allows = self.action == Action::Allow;
        Some(self.http.iter().any(|entry| {
            let upgrade = match (entry.upgrade, facts.upgrade) {
                (None, None) => true,
                (None, Some(_)) => !allows,
                (Some(_), None) => false,
                (Some(meant), Some(asked)) => meant == asked && (facts.method == "GET" || !allows),
            };
            upgrade
                && (entry.methods.is_empty() || entry.methods.iter().any(|method| method == facts.method))
                && (entry.paths.is_empty() || entry.paths.iter().any(|path| path.matches(facts.path)))
        }))
    }

    /// Why an allow rule does not let a request be made.
    fn lacks_http(&self, request: &Request<'_>) -> Option<Reason> {
        let upgrades = request.http?.upgrade.is_some() && self.sees_requests();
        match self.http_matches(request) {
            Some(true) if !self.http.is_empty() || !upgrades => None,
            _ if upgrades => Some(Reason::UpgradeNotAllowed),
            _ => Some(Reason::HttpNotAllowed),
        }
    }

    fn sees_requests(&self) -> bool {
        self.protocol == Protocol::Http || self.tls == TlsMode::Inspect || !self.http.is_empty()
    }

    /// One trial for each end that holds the request.
    pub(super) fn trials(&self, options: &CompileOptions, request: &Request<'_>) -> Vec<Trial> {
        let address: Vec<IpAddr> = request.address.into_iter().collect();
        let ends = self.ends.iter().filter(|end| !matches!(end, Destination::Grants(_)));
        let reached = ends.filter_map(|end| reach(end, options, request, &address));
        reached.map(|reached| self.attempt(&reached, request)).collect()
    }

    fn attempt(&self, reached: &Reached, request: &Request<'_>) -> Trial {
        let treatment = Treatment {
            dial: match reached.by {
                Dial::Workload if self.tls != TlsMode::Mesh || self.direction == Direction::Ingress => {
                    Dial::OriginalDestination
                }
                by => by,
            },
            tls: self.tls,
            private: reached.private,
            per_request: self.sees_requests(),
            demands: !self.demands.is_empty(),
        };
        let lack = self.lack(reached, request);
        let in_audit = self.audit_until.is_some_and(|last| request.today <= last);
        let tolerated =
            lack.filter(|(predicate, _)| in_audit && matches!(predicate, Predicate::Tls | Predicate::Http));
        let tolerated = tolerated.map(|(_, reason)| {
            let tls = match (reason, self.tls) {
                (Reason::HttpNotAllowed | Reason::UpgradeNotAllowed, tls) => tls,
                (Reason::TlsEch, tls @ TlsMode::Passthrough { .. }) => tls,
                (Reason::TlsVersionClient, TlsMode::Passthrough { .. }) => {
                    TlsMode::Passthrough { min_tls12: true }
                }
                _ => TlsMode::None,
            };
            (reason, Treatment { tls, ..treatment })
        });
        let rate = self.demands.limit.map_or(u32::MAX, |limit| limit.per_second);
        Trial { at: reached.at, rule: Reverse(self.name()), treatment, rate, lack, tolerated }
    }

    fn lack(&self, reached: &Reached, request: &Request<'_>) -> Option<(Predicate, Reason)> {
        let by_name = reached.by == Dial::Name;
        if reached.excepted {
            return Some((Predicate::Except, Reason::NoRule));
        }
        if !self.has_port(request.port) {
            return Some((Predicate::Port, Reason::NoRule));
        }
        if !self.carries(by_name, request) {
            let plain = matches!(request.observed, Observed::Http | Observed::Opaque);
            let mismatch = self.protocol != Protocol::Tls || !plain;
            let reason = if mismatch { Reason::ProtocolMismatch } else { Reason::TlsRequired };
            return Some((Predicate::Protocol, reason));
        }
        let led_to = request.address.filter(|_| by_name);
        if let Some(reason) = led_to.and_then(|address| denied_answer(address, reached.private)) {
            return Some((Predicate::Destination, reason));
        }
        if let Some(reason) = self.lacks_tls(by_name, request) {
            return Some((Predicate::Tls, reason));
        }
        self.lacks_http(request).map(|reason| (Predicate::Http, reason))
    }

    fn carries(&self, by_name: bool, request: &Request<'_>) -> bool {
        let claimed =
            matches!(request.host, Some((HostEvidence::Sni | HostEvidence::HttpAuthority, _))) && by_name;
        match self.protocol {
            // The TLS is the proxy's own: anything may be inside.
            Protocol::Tls if self.ends_tls() => request.observed != Observed::Udp,
            Protocol::Tls => matches!(request.observed, Observed::Tls { .. }),
            Protocol::Http => request.observed == Observed::Http,
            Protocol::Tcp => request.observed != Observed::Udp && !claimed,
            Protocol::Udp => request.observed == Observed::Udp,
        }
    }

    fn lacks_tls(&self, by_name: bool, request: &Request<'_>) -> Option<Reason> {
        let inbound = request.direction == Direction::Ingress;
        if self.tls == TlsMode::Mesh && inbound {
            let proven = request.peer.is_some() && request.arrival == Arrival::Mesh;
            return (!proven).then_some(Reason::MeshRequired);
        }
        if self.ends_tls() && request.arrival == Arrival::Plain {
            return Some(Reason::TlsRequired);
        }
        let reads_hello = matches!(self.tls, TlsMode::Passthrough { .. } | TlsMode::Inspect);
        let Observed::Tls { offers_tls13, ech } = request.observed else {
            return (reads_hello && request.observed != Observed::Udp).then_some(Reason::TlsRequired);
        };
        if ech && by_name && self.protocol == Protocol::Tls {
            return Some(Reason::TlsEch);
        }
        let enough = offers_tls13 || !reads_hello || self.tls == TlsMode::Passthrough { min_tls12: true };
        (!enough).then_some(Reason::TlsVersionClient)
    }
}

/// Written out here as well as in the engine: a fault of one must not be the other's too.
fn origin(origin: &Origin) -> Destination {
    match origin {
        Origin::Workloads(patterns) => Destination::Workloads(patterns.clone()),
        Origin::Cidrs { cidrs, except } => {
            Destination::Cidrs { cidrs: cidrs.clone(), except: except.clone() }
        }
        Origin::SecurityGroups(ids) => Destination::SecurityGroups(ids.clone()),
        Origin::PrefixLists(ids) => Destination::PrefixLists(ids.clone()),
    }
}

/// The most specific way in which an end holds a request.
pub(super) struct Reached {
    pub(super) at: Specificity,
    /// By name, as a workload, or by address.
    pub(super) by: Dial,
    pub(super) private: bool,
    /// Taken out again by `except`.
    pub(super) excepted: bool,
}

/// Whether an end holds the request's host, peer, or one of the addresses.
pub(super) fn reach(
    end: &Destination,
    options: &CompileOptions,
    request: &Request<'_>,
    addresses: &[IpAddr],
) -> Option<Reached> {
    let by_address = |at| Reached { at, by: Dial::OriginalDestination, private: false, excepted: false };
    let longest = |nets: &mut dyn Iterator<Item = &IpNet>, addresses: &[IpAddr]| {
        nets.filter(|net| addresses.iter().any(|a| net.contains(a))).map(IpNet::prefix_len).max()
    };
    match end {
        Destination::Hosts { hosts, private } => {
            let (_, host) = request.host?;
            let of = |pattern: &HostPattern| match pattern {
                HostPattern::Exact(_) => Specificity::Exact,
                HostPattern::OneLabel(suffix) => Specificity::Wildcard(suffix.labels().count(), true),
                HostPattern::AnyDepth(suffix) => Specificity::Wildcard(suffix.labels().count(), false),
            };
            let at = hosts.iter().filter(|pattern| pattern.matches(host)).map(of).max()?;
            Some(Reached { at, by: Dial::Name, private: *private, excepted: false })
        }
        Destination::Workloads(patterns) => {
            let peer = request.peer?;
            let matching = patterns.iter().filter(|pattern| pattern.matches(peer));
            let at = Specificity::Workload(matching.map(|pattern| pattern.specificity()).max()?);
            Some(Reached { at, by: Dial::Workload, private: false, excepted: false })
        }
        Destination::Cidrs { cidrs, except } => {
            let left: Vec<IpAddr> = addresses
                .iter()
                .copied()
                .filter(|address| !except.iter().any(|except| except.contains(address)))
                .collect();
            let held =
                longest(&mut cidrs.iter(), &left).map(|length| by_address(Specificity::Prefix(length)));
            held.or_else(|| {
                let length = longest(&mut cidrs.iter(), addresses)?;
                Some(Reached { excepted: true, ..by_address(Specificity::Prefix(length)) })
            })
        }
        Destination::SecurityGroups(ids) | Destination::PrefixLists(ids) => {
            let mut nets = ids.iter().filter_map(|id| options.groups.get(id)).flatten();
            Some(by_address(Specificity::Group(longest(&mut nets, addresses)?)))
        }
        Destination::Grants(grants) => {
            let openings = grants.iter().flat_map(|grant| grant.openings());
            let mut at_port = openings.filter(|opening| opening.port == request.port);
            let hit = at_port.find(|opening| addresses.contains(&opening.address))?;
            let length = if hit.address.is_ipv4() { 32 } else { 128 };
            Some(by_address(Specificity::Prefix(length)))
        }
    }
}
