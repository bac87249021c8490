//! What changes between two policy sets, in words: what becomes reachable, what no longer is, what is carried
//! differently.
//!
//! Both sets cut the world into the same atoms: hosts by pattern, addresses by the edges of prefixes, peers by
//! pattern, ports by the edges of ranges. Within an atom every request is judged alike, so one of each is judged by
//! both sets.

mod atoms;
mod lines;

use std::{collections::BTreeMap, fmt};

use ipnet::IpNet;
use serde::Serialize;

use crate::{
    Arrival, Date, Decision, Demands, Direction, HostEvidence, Observed, PolicySet, Request, Verdict,
    explain::{RuleView, TreatmentView, list_name, observed_word},
};

use self::atoms::{Atom, End, PortAtom, Sample};

/// Every difference, in the order of direction, kind, and subject.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The changes.
    pub changes: Vec<Change>,
    /// Prefixes that either set names, the widest first.
    #[serde(skip)]
    named: Vec<IpNet>,
}

/// How a verdict changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Denied before, passes now.
    BecomesReachable,
    /// Passed before, denied now.
    NoLongerReachable,
    /// Passes before and after, carried or recorded differently.
    CarriedDifferently,
}

/// One change of one end at some ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// How it changes.
    pub kind: Kind,
    /// `egress` or `ingress`.
    pub direction: &'static str,
    /// Host pattern, prefix, or SPIFFE pattern.
    pub end: String,
    #[serde(skip)]
    net: Option<IpNet>,
    /// `443`, `8000-8100`, joined by commas.
    pub ports: String,
    #[serde(skip)]
    ranges: Vec<(u16, u16)>,
    /// `tls`, `http`, `tcp` or `udp`.
    pub protocol: &'static str,
    /// Method (of upgrades `websocket`) and path that stand for the requests meant, in HTTP rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// Before.
    pub old: State,
    /// After.
    pub new: State,
}

/// What one set says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct State {
    /// `allowed`, `denied` or `would-deny`.
    pub verdict: &'static str,
    /// The deciding rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleView>,
    /// How it is carried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub treatment: Option<TreatmentView>,
}

/// Compares two sets on one day (audit modes end).
pub fn compare(old: &PolicySet, new: &PolicySet, today: Date) -> Difference {
    let mut changes: BTreeMap<Key, Vec<Found>> = BTreeMap::new();
    for (order, direction) in [Direction::Egress, Direction::Ingress].into_iter().enumerate() {
        for atom in atoms::ends(old, new, direction) {
            for ports in atoms::ports(old, new, direction, &atom) {
                for (observed, http) in atoms::requests(old, new, direction, &atom) {
                    let facts = http.as_ref().map(Sample::facts);
                    let request =
                        Request { http: facts, ..request(direction, &atom, ports, observed, today) };
                    let (before, after) = (old.decide(&request), new.decide(&request));
                    let demands = demands(old, &before) != demands(new, &after);
                    let carriage_changes = demands || before.treatment != after.treatment;
                    let Some(kind) = kind(&before, &after, carriage_changes) else { continue };
                    let http = http.map(|sample| sample.to_string());
                    let key = (order, kind, atom.clone(), observed_word(observed), http);
                    changes.entry(key).or_default().push(Found {
                        ports,
                        old: State::of(old, &before),
                        new: State::of(new, &after),
                    });
                }
            }
        }
    }
    let changes = changes.into_iter().flat_map(|(key, found)| join(key, found)).collect();
    Difference { changes, named: atoms::named(old, new) }
}

/// What changes are gathered by: direction (0: egress), kind, end, protocol, and method with path.
type Key = (usize, Kind, Atom, &'static str, Option<String>);

/// A changed verdict at one port atom.
struct Found {
    ports: PortAtom,
    old: State,
    new: State,
}

/// `None`: nothing that matters changes. Which of several rules allows is no change.
fn kind(old: &Decision, new: &Decision, carriage_changes: bool) -> Option<Kind> {
    match (old.verdict, new.verdict) {
        (Verdict::Denied, Verdict::Denied) => None,
        (Verdict::Denied, _) => Some(Kind::BecomesReachable),
        (_, Verdict::Denied) => Some(Kind::NoLongerReachable),
        (a, b) => (a != b || carriage_changes).then_some(Kind::CarriedDifferently),
    }
}

fn demands<'s>(set: &'s PolicySet, decision: &Decision) -> Option<&'s Demands> {
    set.demands(decision.rule?).map(AsRef::as_ref)
}

fn request<'a>(
    direction: Direction,
    atom: &'a Atom,
    ports: PortAtom,
    observed: Observed,
    today: Date,
) -> Request<'a> {
    let evidence = match observed {
        Observed::Tls { .. } => HostEvidence::Sni,
        Observed::Http => HostEvidence::HttpAuthority,
        Observed::Opaque | Observed::Udp => HostEvidence::Synthetic,
    };
    let host = match &atom.end {
        End::Host { sample, .. } => Some((evidence, sample)),
        _ => None,
    };
    let address = match &atom.end {
        End::Net { net, .. } => Some(net.network()),
        _ => None,
    };
    let peer = match &atom.end {
        End::Peer { sample, .. } => Some(sample),
        End::Net { peer, .. } => peer.as_ref(),
        End::Host { .. } | End::Anyone => None,
    };
    let meshed = direction == Direction::Ingress && peer.is_some();
    let arrival = if meshed { Arrival::Mesh } else { Arrival::Plain };
    Request { direction, host, address, port: ports.first, observed, peer, arrival, http: None, today }
}

fn join((order, kind, atom, protocol, http): Key, found: Vec<Found>) -> Vec<Change> {
    let direction = list_name(if order == 0 { Direction::Egress } else { Direction::Ingress });
    let net = match &atom.end {
        End::Net { net, .. } => Some(*net),
        _ => None,
    };
    let mut changes: Vec<Change> = Vec::new();
    for Found { ports: PortAtom { first, last }, old, new } in found {
        match changes.iter_mut().find(|change| change.old == old && change.new == new) {
            Some(change) => match change.ranges.last_mut() {
                Some((_, before)) if u32::from(*before) + 1 == u32::from(first) => *before = last,
                _ => change.ranges.push((first, last)),
            },
            None => {
                let (end, http) = (atom.to_string(), http.clone());
                let (ports, ranges) = (String::new(), vec![(first, last)]);
                changes.push(Change { kind, direction, end, net, ports, ranges, protocol, http, old, new });
            }
        }
    }
    for change in &mut changes {
        let shown =
            change.ranges.iter().map(|(first, last)| PortAtom { first: *first, last: *last }.to_string());
        change.ports = shown.collect::<Vec<_>>().join(", ");
    }
    changes
}

impl State {
    fn of(set: &PolicySet, decision: &Decision) -> State {
        State {
            verdict: decision.verdict.word(),
            rule: decision.rule.map(|rule| set.view(rule)),
            treatment: set.carried(decision),
        }
    }
}

impl Difference {
    /// One line for each thing that changes, in the order of kind: pieces that read alike are joined, and long lists
    /// counted. [`Difference::changes`] has every piece.
    pub fn summary(&self) -> Vec<String> {
        self.lines().iter().map(ToString::to_string).collect()
    }

    fn lines(&self) -> Vec<lines::Line> {
        let mut lines = lines::of(&self.changes, &self.named);
        lines.sort_by_key(|line| line.kind);
        lines
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut heading = None;
        for line in self.lines() {
            if heading.replace(line.kind) != Some(line.kind) {
                f.write_str(match line.kind {
                    Kind::BecomesReachable => "becomes reachable:\n",
                    Kind::NoLongerReachable => "no longer reachable:\n",
                    Kind::CarriedDifferently => "carried differently:\n",
                })?;
            }
            writeln!(f, "  {line}")?;
        }
        if heading.is_none() { writeln!(f, "The two say the same.") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
