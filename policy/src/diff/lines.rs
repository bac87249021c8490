//! Changes as a reviewer would write them: one line for each thing that changes, whichever pieces it was cut into.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use ipnet::IpNet;

use crate::{
    Upgrade,
    address::AddressRange,
    deny_table::{datagram_denials, denied_destination},
    explain::TreatmentView,
};

use super::{
    Change, Kind, State,
    atoms::{PROBE, PROBE_METHOD},
};

/// Ends, and requests, that a line spells out before it counts.
const SPELLED: usize = 6;

/// Changes that read alike, as one.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) kind: Kind,
    direction: &'static str,
    protocols: BTreeSet<&'static str>,
    nets: BTreeSet<IpNet>,
    /// Hosts and identities.
    names: BTreeSet<String>,
    ports: BTreeSet<(u16, u16)>,
    /// `None`: the connection itself.
    http: BTreeSet<Option<String>>,
    detail: String,
    by: String,
}

/// `named`: prefixes that policies name, by which cut pieces are called again.
pub(super) fn of(changes: &[Change], named: &[IpNet]) -> Vec<Line> {
    let lines: Vec<Line> = changes.iter().map(Line::of).collect();
    let ends = |line: &Line| (line.nets.clone(), line.names.clone());
    let rest = |line: &Line| (line.kind, line.direction, line.detail.clone(), line.by.clone());
    let lines = merged(lines, |line| (rest(line), ends(line), line.protocols.clone(), line.http.clone()));
    let lines = merged(lines, |line| (rest(line), ends(line), line.protocols.clone(), line.ports.clone()));
    let lines = merged(lines, |line| (rest(line), ends(line), line.http.clone(), line.ports.clone()));
    let mut lines =
        merged(lines, |line| (rest(line), line.protocols.clone(), line.http.clone(), line.ports.clone()));
    for line in &mut lines {
        line.nets = called(std::mem::take(&mut line.nets), named);
    }
    lines
}

/// Joins lines of the same key, each at the place of the first.
fn merged<K: Ord>(lines: Vec<Line>, key: impl Fn(&Line) -> K) -> Vec<Line> {
    let mut places: BTreeMap<K, usize> = BTreeMap::new();
    let mut joined: Vec<Line> = Vec::new();
    for line in lines {
        let place = *places.entry(key(&line)).or_insert(joined.len());
        match joined.get_mut(place) {
            Some(first) => first.absorb(line),
            None => joined.push(line),
        }
    }
    joined
}

/// The fewest prefixes: those that policies name first, where nothing but the fixed table is missing from them.
fn called(pieces: BTreeSet<IpNet>, named: &[IpNet]) -> BTreeSet<IpNet> {
    let mut left: Vec<IpNet> = pieces.into_iter().collect();
    let closed = datagram_denials().filter(|net| denied_destination(net.network()).is_some());
    let closed: Vec<AddressRange> = closed.map(AddressRange::of).collect();
    let mut found = BTreeSet::new();
    for net in named {
        let inside = |piece: &IpNet| net.contains(piece);
        if !left.iter().any(inside) {
            continue;
        }
        let holes = left.iter().copied().map(AddressRange::of).chain(closed.iter().copied());
        let missing = holes.fold(vec![AddressRange::of(*net)], |ranges, hole| {
            ranges.into_iter().flat_map(|range| range.without(hole)).flatten().collect()
        });
        if missing.is_empty() {
            left.retain(|piece| !inside(piece));
            found.insert(*net);
        }
    }
    found.extend(IpNet::aggregate(&left));
    found
}

impl Line {
    fn of(change: &Change) -> Line {
        let (detail, by) = (change.detail(), change.by());
        let names = if change.net.is_none() { Some(change.end.clone()) } else { None };
        Line {
            kind: change.kind,
            direction: change.direction,
            protocols: BTreeSet::from([change.protocol]),
            nets: change.net.into_iter().collect(),
            names: names.into_iter().collect(),
            ports: change.ranges.iter().copied().collect(),
            http: BTreeSet::from([change.http.clone()]),
            detail,
            by,
        }
    }

    fn absorb(&mut self, mut other: Line) {
        self.protocols.append(&mut other.protocols);
        self.nets.append(&mut other.nets);
        self.names.append(&mut other.names);
        self.ports.append(&mut other.ports);
        self.http.append(&mut other.http);
    }

    fn protocol(&self) -> String {
        let has = |words: &[&str]| words.iter().all(|word| self.protocols.contains(word));
        match self.protocols.len() {
            4 => "any protocol".to_owned(),
            3 if has(&["tls", "http", "tcp"]) => "any tcp".to_owned(),
            _ => self.protocols.iter().copied().collect::<Vec<_>>().join(", "),
        }
    }

    fn ends(&self) -> String {
        let nets = self.nets.iter().map(|net| match net.prefix_len() == net.max_prefix_len() {
            true => net.addr().to_string(),
            false => net.to_string(),
        });
        spelled(self.names.iter().cloned().chain(nets).collect())
    }

    fn ports(&self) -> String {
        let mut joined: Vec<(u16, u16)> = Vec::new();
        for (first, last) in &self.ports {
            match joined.last_mut() {
                Some((_, before)) if u32::from(*first) <= u32::from(*before) + 1 => {
                    *before = (*before).max(*last);
                }
                _ => joined.push((*first, *last)),
            }
        }
        let shown = joined.iter().map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        });
        match joined.as_slice() {
            [(1, u16::MAX)] => "any port".to_owned(),
            [(first, last)] if first == last => format!("port {first}"),
            _ => format!("ports {}", shown.collect::<Vec<_>>().join(", ")),
        }
    }

    /// Empty when whole connections change, and every request with them.
    fn requests(&self) -> String {
        let every = Some(format!("{PROBE_METHOD} /{PROBE}"));
        let whole = self.http.contains(&None) && (self.http.len() == 1 || self.http.contains(&every));
        // Upgrades come with no other request.
        let upgrade = |request: &&String| request.split(' ').next() == Some(Upgrade::WebSocket.word());
        let named = self.http.iter().flatten().filter(|request| !whole || upgrade(request));
        let requests: BTreeSet<String> = named.map(|request| pattern(request)).collect();
        match requests.is_empty() {
            true => String::new(),
            false if whole => format!(", also for {}", spelled(requests.into_iter().collect())),
            false => format!(" for {}", spelled(requests.into_iter().collect())),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.kind {
            Kind::BecomesReachable => '+',
            Kind::NoLongerReachable => '-',
            Kind::CarriedDifferently => '~',
        };
        let from = if self.direction == "egress" { "to" } else { "from" };
        write!(f, "{mark} {} {from} {} {}", self.protocol(), self.ends(), self.ports())?;
        write!(f, "{}{}{}", self.requests(), self.detail, self.by)
    }
}

/// A few, or the first and how many more.
fn spelled(mut all: Vec<String>) -> String {
    let more = all.len().saturating_sub(SPELLED);
    if more > 1 {
        all.truncate(SPELLED);
        return format!("{} and {more} more", all.join(", "));
    }
    all.join(", ")
}

/// What the sample of a request stands for.
fn pattern(request: &str) -> String {
    let (method, path) = request.split_once(' ').unwrap_or((request, ""));
    let method = if method == PROBE_METHOD { "any other method" } else { method };
    let path = match path.strip_prefix('/') {
        Some(PROBE) => "any other path".to_owned(),
        _ => path.replace(&format!("{PROBE}/{PROBE}"), "**").replace(PROBE, "*"),
    };
    format!("{method} {path}")
}

impl Change {
    /// How it is carried, where that says more than the protocol; for a change of carriage, what changes.
    fn detail(&self) -> String {
        let audit = |state: &State| if state.verdict == "would-deny" { Some("audit only") } else { None };
        let parts: Vec<String> = match (self.kind, &self.old.treatment, &self.new.treatment) {
            (Kind::NoLongerReachable, ..) | (Kind::BecomesReachable, _, None) => Vec::new(),
            (Kind::BecomesReachable, _, Some(new)) => {
                let usual =
                    ["TLS 1.3", "public addresses only", "connections are judged", "", "no other demands"];
                let words = words(new).into_iter().zip(usual);
                words.filter(|(word, usual)| word != usual).map(|(word, _)| word).collect()
            }
            (Kind::CarriedDifferently, Some(old), Some(new)) => {
                let pairs = words(old).into_iter().zip(words(new));
                pairs.filter(|(old, new)| old != new).map(|(old, new)| format!("{old} -> {new}")).collect()
            }
            (Kind::CarriedDifferently, ..) => Vec::new(),
        };
        let audit = match (audit(&self.old), audit(&self.new)) {
            (None, Some(word)) => Some(word.to_owned()),
            (Some(word), None) if self.kind == Kind::CarriedDifferently => {
                Some(format!("{word} -> enforced"))
            }
            _ => None,
        };
        let parts: Vec<String> = parts.into_iter().chain(audit).collect();
        if parts.is_empty() { String::new() } else { format!(" ({})", parts.join("; ")) }
    }

    fn by(&self) -> String {
        let (verb, rule) = match (self.kind, &self.old.rule, &self.new.rule) {
            (Kind::NoLongerReachable, _, Some(new)) => ("denied by", Some(new)),
            (Kind::NoLongerReachable, old, None) => ("was allowed by", old.as_ref()),
            (_, _, new) => ("by", new.as_ref()),
        };
        rule.map_or_else(String::new, |rule| format!("   {verb} {rule}"))
    }
}

/// TLS, addresses, judgement of requests, what is dialled if that is unusual, and what the rule demands besides.
fn words(treatment: &TreatmentView) -> [String; 5] {
    let tls = match (treatment.tls, treatment.min_tls) {
        ("passthrough", Some("1.2")) => "TLS 1.2 tolerated",
        ("originate", _) => "plaintext made TLS 1.3",
        ("inspect", _) => "TLS inspected",
        ("mesh", _) => "mutual TLS",
        ("terminate", _) => "TLS ends here",
        ("none", _) => "exempt from TLS",
        _ => "TLS 1.3",
    };
    let private = if treatment.private { "private addresses too" } else { "public addresses only" };
    let judged = if treatment.per_request { "each request is judged" } else { "connections are judged" };
    let dial = if treatment.dial == "workload" { "dialled as a workload" } else { "" };
    let demands = treatment.demands();
    let demands = if demands.is_empty() { "no other demands".to_owned() } else { demands.join(", ") };
    [tls.to_owned(), private.to_owned(), judged.to_owned(), dial.to_owned(), demands]
}
