//! The atoms of two sets: ends, ports and requests that both judge alike throughout.

use std::{collections::BTreeSet, fmt};

use ipnet::IpNet;

use crate::{
    CanonicalPath, Direction, HostName, HostPattern, Observed, PolicySet, SpiffeId, SpiffePattern, Upgrade,
    address::{AddressRange, host_net},
    deny_table::{Grant, datagram_denials},
    document::{Destination, Probe, Protocol},
    request::HttpFacts,
    set::rule::CompiledRule,
};

/// A label and path segment that no policy means.
pub(super) const PROBE: &str = "sidegate-probe";
/// A method that no policy means.
pub(super) const PROBE_METHOD: &str = "PROBE";

/// One end, with a sample of what it stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Atom {
    pub(super) end: End,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    Host {
        shown: String,
        sample: HostName,
    },
    /// Its first address is the sample. In ingress, with an identity that no rule names.
    Net {
        net: IpNet,
        peer: Option<SpiffeId>,
    },
    Peer {
        shown: String,
        sample: SpiffeId,
    },
    /// Whoever sends health probes: by no address or identity in particular.
    Anyone,
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.end {
            End::Host { shown, .. } | End::Peer { shown, .. } => f.write_str(shown),
            End::Anyone => f.write_str("anyone"),
            End::Net { net, .. } if net.prefix_len() == net.max_prefix_len() => write!(f, "{}", net.addr()),
            End::Net { net, .. } => write!(f, "{net}"),
        }
    }
}

/// Ports that every rule for an end covers wholly or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PortAtom {
    pub(super) first: u16,
    pub(super) last: u16,
}

impl fmt::Display for PortAtom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

fn rules<'s>(
    old: &'s PolicySet,
    new: &'s PolicySet,
    direction: Direction,
) -> impl Iterator<Item = &'s CompiledRule> {
    let both = old.rules().chain(new.rules()).map(|(_, rule)| rule);
    both.filter(move |rule| rule.direction == direction)
}

fn probes<'s>(old: &'s PolicySet, new: &'s PolicySet) -> impl Iterator<Item = &'s Probe> {
    old.probes().iter().chain(new.probes())
}

/// Every end that a rule of either set names, and one beside all of them.
pub(super) fn ends(old: &PolicySet, new: &PolicySet, direction: Direction) -> BTreeSet<Atom> {
    let mut found = BTreeSet::new();
    let mut edges = Edges::default();
    for end in rules(old, new, direction).flat_map(|rule| &rule.ends) {
        match end {
            Destination::Hosts { hosts, .. } => found.extend(hosts.iter().filter_map(host)),
            Destination::Workloads(patterns) => found.extend(patterns.iter().filter_map(peer)),
            Destination::Cidrs { cidrs, except } => {
                cidrs.iter().chain(except).for_each(|net| edges.add(*net))
            }
            Destination::Grants(grants) => {
                let openings = grants.iter().copied().flat_map(Grant::openings);
                openings.for_each(|opening| edges.add(host_net(opening.address)));
            }
            Destination::SecurityGroups(_) | Destination::PrefixLists(_) => {}
        }
    }
    old.group_nets().chain(new.group_nets()).for_each(|net| edges.add(net));
    if direction == Direction::Egress {
        found.extend(unnamed());
    }
    if direction == Direction::Ingress && probes(old, new).next().is_some() {
        found.insert(Atom { end: End::Anyone });
    }
    let stranger =
        (direction == Direction::Ingress).then(|| SpiffeId::parse("spiffe://sidegate-probe/none").ok());
    let peer = stranger.flatten();
    found.extend(edges.nets().into_iter().map(|net| Atom { end: End::Net { net, peer: peer.clone() } }));
    found
}

/// Prefixes of rules and groups, the widest first.
pub(super) fn named(old: &PolicySet, new: &PolicySet) -> Vec<IpNet> {
    let ends = old.rules().chain(new.rules()).flat_map(|(_, rule)| &rule.ends);
    let cidrs = ends.flat_map(|end| match end {
        Destination::Cidrs { cidrs, .. } => cidrs.as_slice(),
        _ => &[],
    });
    let mut named: Vec<IpNet> = cidrs.copied().chain(old.group_nets()).chain(new.group_nets()).collect();
    named.sort_by_key(|net| (net.prefix_len(), *net));
    named.dedup();
    named
}

fn unnamed() -> Option<Atom> {
    let sample = HostName::parse("sidegate-probe.sidegate-probe").ok()?;
    Some(Atom { end: End::Host { shown: "any other host".to_owned(), sample } })
}

fn host(pattern: &HostPattern) -> Option<Atom> {
    let sample = match pattern {
        HostPattern::Exact(name) => name.clone(),
        HostPattern::OneLabel(suffix) => HostName::parse(&format!("{PROBE}.{suffix}")).ok()?,
        HostPattern::AnyDepth(suffix) => HostName::parse(&format!("{PROBE}.{PROBE}.{suffix}")).ok()?,
    };
    Some(Atom { end: End::Host { shown: pattern.to_string(), sample } })
}

fn peer(pattern: &SpiffePattern) -> Option<Atom> {
    let segments = pattern.as_str().split('/').map(|segment| match segment {
        "*" => PROBE.to_owned(),
        "**" => format!("{PROBE}/{PROBE}/{PROBE}"),
        literal => literal.to_owned(),
    });
    let sample = SpiffeId::parse(&segments.collect::<Vec<_>>().join("/")).ok()?;
    Some(Atom { end: End::Peer { shown: pattern.as_str().to_owned(), sample } })
}

/// Where prefixes begin and end, a family each.
#[derive(Default)]
struct Edges {
    v4: BTreeSet<u128>,
    v6: BTreeSet<u128>,
}

impl Edges {
    fn add(&mut self, net: IpNet) {
        let range = AddressRange::of(net);
        let (edges, most) =
            if range.v4 { (&mut self.v4, u128::from(u32::MAX)) } else { (&mut self.v6, u128::MAX) };
        edges.insert(range.first);
        if range.last < most {
            edges.insert(range.last + 1);
        }
    }

    /// The spaces between edges, as prefixes; cut by the fixed table too.
    fn nets(mut self) -> Vec<IpNet> {
        for net in datagram_denials() {
            self.add(net);
        }
        [(true, self.v4, u128::from(u32::MAX)), (false, self.v6, u128::MAX)]
            .into_iter()
            .flat_map(|(v4, mut edges, most)| {
                edges.insert(0);
                let starts: Vec<u128> = edges.into_iter().collect();
                let ends = starts.iter().skip(1).map(|next| next - 1).chain([most]).collect::<Vec<_>>();
                starts.into_iter().zip(ends).map(move |(first, last)| AddressRange { v4, first, last })
            })
            .flat_map(AddressRange::nets)
            .collect()
    }
}

/// The spaces between the port edges of all rules that could concern the atom.
pub(super) fn ports(old: &PolicySet, new: &PolicySet, direction: Direction, atom: &Atom) -> Vec<PortAtom> {
    let mut starts = BTreeSet::from([1_u16]);
    let mut add = |first: u16, last: u16| {
        starts.insert(first.max(1));
        starts.extend(last.checked_add(1));
    };
    for rule in rules(old, new, direction).filter(|rule| concerns(rule, atom)) {
        rule.ports.iter().for_each(|range| add(*range.start(), *range.end()));
        for end in &rule.ends {
            let Destination::Grants(grants) = end else { continue };
            grants
                .iter()
                .flat_map(|grant| grant.openings())
                .for_each(|opening| add(opening.port, opening.port));
        }
    }
    if atom.end == End::Anyone {
        probes(old, new).for_each(|probe| add(probe.port, probe.port));
    }
    let starts: Vec<u16> = starts.into_iter().collect();
    let lasts: Vec<u16> = starts.iter().skip(1).map(|next| next - 1).chain([u16::MAX]).collect();
    starts.into_iter().zip(lasts).map(|(first, last)| PortAtom { first, last }).collect()
}

/// Whether a rule has an end that holds the atom; group ends count always.
fn concerns(rule: &CompiledRule, atom: &Atom) -> bool {
    rule.ends.iter().any(|end| match (end, &atom.end) {
        (Destination::Hosts { hosts, .. }, End::Host { sample, .. }) => {
            hosts.iter().any(|pattern| pattern.matches(sample))
        }
        (Destination::Workloads(patterns), End::Peer { sample, .. }) => {
            patterns.iter().any(|pattern| pattern.matches(sample))
        }
        (Destination::Cidrs { cidrs, .. }, End::Net { net, .. }) => {
            // An IPv6 address may carry an IPv4 one that a deny rule names.
            let ours = crate::address::with_embedded(net.network());
            ours.into_iter().flatten().any(|address| cidrs.iter().any(|cidr| cidr.contains(&address)))
        }
        (
            Destination::Grants(_) | Destination::SecurityGroups(_) | Destination::PrefixLists(_),
            End::Net { .. },
        ) => true,
        _ => false,
    })
}

/// One request that stands for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) method: String,
    pub(super) path: CanonicalPath,
    pub(super) upgrade: Option<Upgrade>,
}

impl Sample {
    pub(super) fn facts(&self) -> HttpFacts<'_> {
        HttpFacts { method: &self.method, path: &self.path, upgrade: self.upgrade, session: true }
    }
}

/// `GET /v1/items`, `websocket /live`.
impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked = self.upgrade.map_or(self.method.as_str(), |upgrade| upgrade.word());
        write!(f, "{asked} {}", self.path)
    }
}

/// Connections of each protocol, and the requests that `http` entries tell apart.
pub(super) fn requests(
    old: &PolicySet,
    new: &PolicySet,
    direction: Direction,
    atom: &Atom,
) -> Vec<(Observed, Option<Sample>)> {
    if atom.end == End::Anyone {
        let paths: BTreeSet<&str> = probes(old, new).map(|probe| probe.path.as_str()).collect();
        let paths = paths.into_iter().filter_map(|path| CanonicalPath::parse(path).ok());
        let get = |path| Sample { method: "GET".to_owned(), path, upgrade: None };
        return paths.map(|path| (Observed::Http, Some(get(path)))).collect();
    }
    let tls = Observed::Tls { offers_tls13: true, ech: false };
    let mut found: Vec<(Observed, Option<Sample>)> =
        [tls, Observed::Http, Observed::Opaque].map(|observed| (observed, None)).into();
    if matches!(atom.end, End::Net { .. }) && direction == Direction::Egress {
        found.push((Observed::Udp, None));
    }
    let (mut methods, mut paths, mut kinds) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    let mut upgrades = BTreeSet::new();
    for rule in rules(old, new, direction).filter(|rule| !rule.http.is_empty() && concerns(rule, atom)) {
        methods.extend(rule.http.iter().flat_map(|entry| &entry.methods).cloned());
        paths.extend(rule.http.iter().flat_map(|entry| &entry.paths).map(|path| sample_path(path.as_str())));
        upgrades.extend(rule.http.iter().filter_map(|entry| entry.upgrade));
        kinds.push(if rule.protocol == Protocol::Http { Observed::Http } else { tls });
    }
    if kinds.is_empty() {
        return found;
    }
    methods.insert(PROBE_METHOD.to_owned());
    paths.insert(format!("/{PROBE}"));
    let unseen = if kinds.contains(&tls) { vec![Observed::Http, tls] } else { vec![Observed::Http] };
    for observed in unseen {
        let plain = methods.iter().map(|method| (method.as_str(), None));
        for (method, upgrade) in plain.chain(upgrades.iter().map(|upgrade| ("GET", Some(*upgrade)))) {
            let parsed = paths.iter().filter_map(|path| CanonicalPath::parse(path).ok());
            found.extend(
                parsed.map(|path| (observed, Some(Sample { method: method.to_owned(), path, upgrade }))),
            );
        }
    }
    found
}

fn sample_path(pattern: &str) -> String {
    let segments = pattern.split('/').map(|segment| match segment {
        "*" => PROBE.to_owned(),
        "**" => format!("{PROBE}/{PROBE}"),
        literal => literal.to_owned(),
    });
    segments.collect::<Vec<_>>().join("/")
}
