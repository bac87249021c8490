//! What changes between two policy sets, in words: what becomes reachable, what no longer is, what is carried
//! differently.
//!
//! Both sets cut the world into the same atoms: hosts by pattern, addresses by the edges of prefixes, peers by
//! pattern, ports by the edges of ranges. Within an atom every request is judged alike, so one of each is judged by
//! both sets.

mod atoms;

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use crate::{
    Date, Decision, Direction, HostEvidence, Observed, PolicySet, Request, Verdict,
    explain::{RuleView, TreatmentView, list_name, observed_word},
    request::HttpFacts,
};

use self::atoms::{Atom, End, PortAtom};

/// Every difference, in the order of direction, kind, and subject.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The changes.
    pub changes: Vec<Change>,
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
    /// `443`, `8000-8100`, joined by commas.
    pub ports: String,
    /// `tls`, `http`, `tcp` or `udp`.
    pub protocol: &'static str,
    /// Method and path that stand for the requests meant, in HTTP rules.
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
                    let facts = http.as_ref().map(|(method, path)| HttpFacts { method, path });
                    let request =
                        Request { http: facts, ..request(direction, &atom, ports, observed, today) };
                    let (before, after) = (old.decide(&request), new.decide(&request));
                    let Some(kind) = kind(&before, &after) else { continue };
                    let http = http.map(|(method, path)| format!("{method} {}", path.as_str()));
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
    Difference { changes: changes.into_iter().flat_map(|(key, found)| join(key, found)).collect() }
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
fn kind(old: &Decision, new: &Decision) -> Option<Kind> {
    match (old.verdict, new.verdict) {
        (Verdict::Denied, Verdict::Denied) => None,
        (Verdict::Denied, _) => Some(Kind::BecomesReachable),
        (_, Verdict::Denied) => Some(Kind::NoLongerReachable),
        (a, b) => (a != b || old.treatment != new.treatment).then_some(Kind::CarriedDifferently),
    }
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
        End::Host { .. } => None,
    };
    Request { direction, host, address, port: ports.first, observed, peer, http: None, today }
}

fn join((order, kind, atom, protocol, http): Key, found: Vec<Found>) -> Vec<Change> {
    let direction = if order == 0 { Direction::Egress } else { Direction::Ingress };
    let mut changes: Vec<(Change, u16)> = Vec::new();
    for Found { ports, old, new } in found {
        let shown = ports.to_string();
        match changes.iter_mut().find(|(change, _)| change.old == old && change.new == new) {
            Some((change, last)) if u32::from(*last) + 1 == u32::from(ports.first) => {
                let start = change.ports.rfind([' ', '-']).map_or(0, |at| at + 1);
                let head = change.ports.get(..start).unwrap_or_default();
                change.ports = if head.ends_with('-') {
                    format!("{head}{}", ports.last)
                } else {
                    format!("{}-{}", change.ports, ports.last)
                };
                *last = ports.last;
            }
            Some((change, last)) => {
                change.ports = format!("{}, {shown}", change.ports);
                *last = ports.last;
            }
            None => {
                let end = atom.to_string();
                let http = http.clone();
                let direction = list_name(direction);
                let change = Change { kind, direction, end, ports: shown, protocol, http, old, new };
                changes.push((change, ports.last));
            }
        }
    }
    changes.into_iter().map(|(change, _)| change).collect()
}

impl State {
    fn of(set: &PolicySet, decision: &Decision) -> State {
        State {
            verdict: decision.verdict.word(),
            rule: decision.rule.map(|rule| set.view(rule)),
            treatment: decision.treatment.map(TreatmentView::of),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.changes.is_empty() {
            return writeln!(f, "The two say the same.");
        }
        let headings = [
            (Kind::BecomesReachable, "becomes reachable"),
            (Kind::NoLongerReachable, "no longer reachable"),
            (Kind::CarriedDifferently, "carried differently"),
        ];
        for (kind, heading) in headings {
            let of_kind: Vec<_> = self.changes.iter().filter(|change| change.kind == kind).collect();
            if !of_kind.is_empty() {
                writeln!(f, "{heading}:")?;
            }
            for change in of_kind {
                writeln!(f, "  {change}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mark, by) = match self.kind {
            Kind::BecomesReachable => ('+', &self.new),
            Kind::NoLongerReachable => ('-', if self.new.rule.is_some() { &self.new } else { &self.old }),
            Kind::CarriedDifferently => ('~', &self.new),
        };
        let from = if self.direction == "egress" { "to" } else { "from" };
        write!(f, "{mark} {} {from} {} port {}", self.protocol, self.end, self.ports)?;
        if let Some(http) = &self.http {
            write!(f, " for {http}")?;
        }
        let audit = |state: &State| if state.verdict == "would-deny" { " (audit only)" } else { "" };
        write!(f, "{}", audit(&self.new))?;
        if self.kind == Kind::CarriedDifferently
            && let (Some(old), Some(new)) = (&self.old.treatment, &self.new.treatment)
        {
            write!(f, ": {old}{} -> {new}", audit(&self.old))?;
        }
        let verb = match (self.kind, by.verdict) {
            (Kind::NoLongerReachable, "denied") => "denied by",
            (Kind::NoLongerReachable, _) => "was allowed by",
            _ => "by",
        };
        by.rule.as_ref().map_or(Ok(()), |rule| write!(f, "   {verb} {rule}"))
    }
}

#[cfg(test)]
mod tests;
