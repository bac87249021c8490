//! A slow second engine, written straight from the precedence text over the documents themselves: every rule is looked
//! at for every request. Tests hold [`crate::PolicySet`] to it; benches show what the indexes are worth.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{
    CompileOptions, Date, Direction, Document, HostEvidence, HostPattern, Observed, Request, Treatment,
    Verdict,
    address::with_embedded,
    decision::{Dial, TlsMode},
    deny_table::{denied_answer, denied_destination},
    document::{Action, Destination, HttpMatch, Origin, Protocol, Rule},
};

/// What the reference says of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// Policy and rule that decided.
    pub rule: Option<(String, String)>,
    /// How to carry it.
    pub treatment: Option<Treatment>,
}

/// Exact host, longest wildcard, workload, group, longest prefix: later variants are more specific.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Specificity {
    Prefix(u8),
    Group(u8),
    Workload(crate::spiffe::SpiffeSpecificity),
    /// Labels of the suffix, and whether it matches just one label.
    Wildcard(usize, bool),
    Exact,
}

/// A rule of either direction.
struct Line<'a> {
    document: &'a Document,
    name: &'a str,
    action: Action,
    ends: Vec<Destination>,
    ports: &'a [std::ops::RangeInclusive<u16>],
    protocol: Protocol,
    tls: TlsMode,
    http: &'a [HttpMatch],
    audit_until: Option<Date>,
}

/// How well a line matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Match {
    Whole,
    /// All but its TLS or HTTP part; with the treatment that audit would give.
    AllButTlsOrHttp(Treatment),
}

type Found = (Specificity, std::cmp::Reverse<(String, String)>, Treatment);

/// Judges a request by documents that agree.
pub fn judge(documents: &[Document], options: &CompileOptions, request: &Request<'_>) -> Outcome {
    let applying: Vec<&Document> = documents.iter().filter(|document| applies(document, options)).collect();
    let denied = |rule| Outcome { verdict: Verdict::Denied, rule, treatment: None };
    if applying.is_empty() {
        return denied(None);
    }
    let lines: Vec<Line<'_>> =
        applying.iter().flat_map(|document| lines(document, request.direction)).collect();
    // 1. The fixed table, opened by grants.
    let Ok(grant) = table(&lines, options, request) else { return denied(None) };
    // 2. Any matching deny.
    let denies = denies(&lines, options, request);
    let best = |kind: fn(&Deny) -> bool| {
        denies.iter().filter(|deny| kind(deny)).max_by(|a, b| (a.at, &a.rule).cmp(&(b.at, &b.rule)))
    };
    if let Some(deny) = best(|deny| !deny.audited && !deny.within_requests) {
        return denied(Some(deny.rule.0.clone()));
    }
    // 3. The most specific matching allow; 4. one in audit; 5. the default.
    let today = request.today;
    let all_audit = applying.iter().all(|document| document.audit_until.is_some_and(|last| today <= last));
    let allowed = grant.unwrap_or_else(|| allow(&lines, options, request, all_audit));
    let Some(treatment) = allowed.treatment else { return allowed };
    // Denies that could not be seen before the treatment was known, and denies in audit.
    let unseen = best(|deny| !deny.audited && deny.within_requests).filter(|_| !treatment.per_request);
    if let Some(deny) = unseen {
        return denied(Some(deny.rule.0.clone()));
    }
    let audited = if treatment.per_request {
        best(|deny| deny.audited && !deny.within_requests)
    } else {
        best(|deny| deny.audited)
    };
    match audited {
        Some(deny) => Outcome {
            verdict: Verdict::WouldDeny,
            rule: Some(deny.rule.0.clone()),
            treatment: Some(treatment),
        },
        None => allowed,
    }
}

fn applies(document: &Document, options: &CompileOptions) -> bool {
    let (Some(patterns), Some(workload)) = (&document.applies_to, &options.workload) else { return true };
    patterns.iter().any(|pattern| pattern.matches(workload))
}

fn lines(document: &Document, direction: Direction) -> Vec<Line<'_>> {
    match direction {
        Direction::Egress => {
            document.egress.iter().map(|rule| line(document, rule, Destination::clone)).collect()
        }
        Direction::Ingress => document.ingress.iter().map(|rule| line(document, rule, origin)).collect(),
    }
}

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

fn line<'a, T>(document: &'a Document, rule: &'a Rule<T>, end: fn(&T) -> Destination) -> Line<'a> {
    Line {
        document,
        name: &rule.name.value,
        action: rule.action,
        ends: rule.ends.iter().map(|one| end(&one.value)).collect(),
        ports: &rule.ports,
        protocol: rule.protocol,
        tls: rule.tls,
        http: &rule.http,
        audit_until: rule.audit_until,
    }
}

impl Line<'_> {
    fn id(&self) -> (String, String) {
        (self.document.name.value.clone(), self.name.to_owned())
    }

    fn has_port(&self, port: u16) -> bool {
        self.ports.iter().any(|range| range.contains(&port))
    }

    fn http_matches(&self, request: &Request<'_>) -> Option<bool> {
        let facts = request.http?;
        let any = |entry: &HttpMatch| {
            (entry.methods.is_empty() || entry.methods.iter().any(|method| method == facts.method))
                && (entry.paths.is_empty() || entry.paths.iter().any(|path| path.matches(facts.path)))
        };
        Some(self.http.is_empty() || self.http.iter().any(any))
    }

    fn treatment(&self, dial: Dial, private: bool) -> Treatment {
        let per_request = self.protocol == Protocol::Http || !self.http.is_empty();
        Treatment { dial, tls: self.tls, private, per_request }
    }
}

/// `Err`: denied. `Ok(Some)`: granted.
fn table(lines: &[Line<'_>], options: &CompileOptions, request: &Request<'_>) -> Result<Option<Outcome>, ()> {
    let (Direction::Egress, Some(address)) = (request.direction, request.address) else { return Ok(None) };
    let own = options.own_listeners.iter().any(|own| {
        let local =
            address.is_loopback() || address.is_unspecified() || options.local_addresses.contains(&address);
        own.port() == request.port && (own.ip() == address || own.ip().is_unspecified() && local)
    });
    if own {
        return Err(());
    }
    if denied_destination(address).is_none() {
        return Ok(None);
    }
    let grants = |line: &&Line<'_>| {
        let openings = line.ends.iter().flat_map(|end| match end {
            Destination::Grants(grants) => grants.as_slice(),
            _ => &[],
        });
        let mut openings = openings.flat_map(|grant| grant.openings());
        line.action == Action::Allow
            && (line.ports.is_empty() || line.has_port(request.port))
            && openings.any(|opening| {
                opening.address == address
                    && opening.port == request.port
                    && opening.udp == (request.observed == Observed::Udp)
            })
    };
    let rule = lines.iter().filter(grants).map(Line::id).min().ok_or(())?;
    let treatment =
        Treatment { dial: Dial::OriginalDestination, tls: TlsMode::None, private: false, per_request: false };
    Ok(Some(Outcome { verdict: Verdict::Allowed, rule: Some(rule), treatment: Some(treatment) }))
}

struct Deny {
    at: Specificity,
    rule: std::cmp::Reverse<(String, String)>,
    audited: bool,
    within_requests: bool,
}

fn denies(lines: &[Line<'_>], options: &CompileOptions, request: &Request<'_>) -> Vec<Deny> {
    let mut found = Vec::new();
    for line in lines.iter().filter(|line| line.action == Action::Deny) {
        let covered = match line.protocol {
            Protocol::Tls => true,
            Protocol::Http => request.observed == Observed::Http || request.http.is_some(),
            Protocol::Tcp => request.observed != Observed::Udp,
            Protocol::Udp => request.observed == Observed::Udp,
        };
        let http = if line.http.is_empty() { Some(true) } else { line.http_matches(request) };
        if !covered || http == Some(false) {
            continue;
        }
        let addresses = request.address.map_or([None; 3], with_embedded);
        for end in &line.ends {
            let at_port = line.has_port(request.port) || denies_grant(line, end, request);
            let reached = reach(end, options, request, &addresses.into_iter().flatten().collect::<Vec<_>>());
            found.extend(reached.filter(|_| at_port).map(|(at, ..)| {
                Deny {
                    at,
                    rule: std::cmp::Reverse(line.id()),
                    audited: [line.audit_until, line.document.audit_until]
                        .into_iter()
                        .flatten()
                        .any(|last| request.today <= last),
                    within_requests: http.is_none(),
                }
            }));
        }
    }
    found
}

fn denies_grant(line: &Line<'_>, end: &Destination, request: &Request<'_>) -> bool {
    matches!(end, Destination::Grants(grants) if line.ports.is_empty()
        && grants.iter().flat_map(|grant| grant.openings()).any(|opening| opening.port == request.port))
}

/// The most specific way in which an end holds the request's host, peer or one of the addresses.
fn reach(
    end: &Destination,
    options: &CompileOptions,
    request: &Request<'_>,
    addresses: &[IpAddr],
) -> Option<(Specificity, Dial, bool)> {
    let longest = |nets: &mut dyn Iterator<Item = &IpNet>, outside: &[IpNet]| {
        let holds = |net: &&IpNet| {
            addresses.iter().any(|a| net.contains(a) && !outside.iter().any(|except| except.contains(a)))
        };
        nets.filter(holds).map(IpNet::prefix_len).max()
    };
    match end {
        Destination::Hosts { hosts, private } => {
            let (_, host) = request.host?;
            let of = |pattern: &HostPattern| match pattern {
                HostPattern::Exact(_) => Specificity::Exact,
                HostPattern::OneLabel(suffix) => Specificity::Wildcard(suffix.labels().count(), true),
                HostPattern::AnyDepth(suffix) => Specificity::Wildcard(suffix.labels().count(), false),
            };
            let best = hosts.iter().filter(|pattern| pattern.matches(host)).map(of).max()?;
            Some((best, Dial::Name, *private))
        }
        Destination::Workloads(patterns) => {
            let peer = request.peer?;
            let matching = patterns.iter().filter(|pattern| pattern.matches(peer));
            let best = matching.map(|pattern| pattern.specificity()).max()?;
            Some((Specificity::Workload(best), Dial::Workload, false))
        }
        Destination::Cidrs { cidrs, except } => {
            let length = longest(&mut cidrs.iter(), except)?;
            Some((Specificity::Prefix(length), Dial::OriginalDestination, false))
        }
        Destination::SecurityGroups(ids) | Destination::PrefixLists(ids) => {
            let length = longest(&mut ids.iter().filter_map(|id| options.groups.get(id)).flatten(), &[])?;
            Some((Specificity::Group(length), Dial::OriginalDestination, false))
        }
        Destination::Grants(grants) => {
            let openings = grants.iter().flat_map(|grant| grant.openings());
            let mut at_port = openings.filter(|opening| opening.port == request.port);
            let hit = at_port.find(|opening| addresses.contains(&opening.address))?;
            let length = if hit.address.is_ipv4() { 32 } else { 128 };
            Some((Specificity::Prefix(length), Dial::OriginalDestination, false))
        }
    }
}

fn allow(lines: &[Line<'_>], options: &CompileOptions, request: &Request<'_>, all_audit: bool) -> Outcome {
    let address: Vec<IpAddr> = request.address.into_iter().collect();
    let (mut whole, mut audited): (Vec<Found>, Vec<Found>) = (Vec::new(), Vec::new());
    for line in lines.iter().filter(|line| line.action == Action::Allow && line.has_port(request.port)) {
        for end in line.ends.iter().filter(|end| !matches!(end, Destination::Grants(_))) {
            let Some((at, dial, private)) = reach(end, options, request, &address) else { continue };
            let by_host = dial == Dial::Name;
            let dial = match dial {
                Dial::Workload if line.tls != TlsMode::Mesh => Dial::OriginalDestination,
                dial => dial,
            };
            let treatment = line.treatment(dial, private);
            let rule = std::cmp::Reverse(line.id());
            match matches(line, by_host, treatment, request) {
                Some(Match::Whole) => whole.push((at, rule, treatment)),
                Some(Match::AllButTlsOrHttp(treatment))
                    if line.audit_until.is_some_and(|last| request.today <= last) =>
                {
                    audited.push((at, rule, treatment));
                }
                _ => {}
            }
        }
    }
    let best = |found: Vec<Found>, verdict| {
        let (_, rule, treatment) = found.into_iter().max_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)))?;
        Some(Outcome { verdict, rule: Some(rule.0), treatment: Some(treatment) })
    };
    best(whole, Verdict::Allowed).or_else(|| best(audited, Verdict::WouldDeny)).unwrap_or_else(|| {
        let dial = if request.address.is_some() { Dial::OriginalDestination } else { Dial::Name };
        let unguarded = Treatment { dial, tls: TlsMode::None, private: true, per_request: false };
        let verdict = if all_audit { Verdict::WouldDeny } else { Verdict::Denied };
        Outcome { verdict, rule: None, treatment: all_audit.then_some(unguarded) }
    })
}

fn matches(line: &Line<'_>, by_host: bool, treatment: Treatment, request: &Request<'_>) -> Option<Match> {
    let vouched = !matches!(request.host, Some((HostEvidence::Sni | HostEvidence::HttpAuthority, _)));
    let protocol = match line.protocol {
        Protocol::Tls => matches!(request.observed, Observed::Tls { .. }),
        Protocol::Http => request.observed == Observed::Http,
        Protocol::Tcp => request.observed != Observed::Udp && (!by_host || vouched),
        Protocol::Udp => request.observed == Observed::Udp,
    };
    let destination =
        !by_host || request.address.is_none_or(|address| denied_answer(address, treatment.private).is_none());
    if !protocol || !destination {
        return None;
    }
    let Observed::Tls { offers_tls13, ech } = request.observed else {
        return Some(without_tls(line, treatment, request));
    };
    let reads = matches!(line.tls, TlsMode::Passthrough { .. } | TlsMode::Inspect);
    if line.tls == TlsMode::Mesh && request.direction == Direction::Ingress && request.peer.is_none() {
        return Some(Match::AllButTlsOrHttp(Treatment { tls: TlsMode::None, ..treatment }));
    }
    if ech && by_host && line.protocol == Protocol::Tls {
        let tls = if matches!(line.tls, TlsMode::Passthrough { .. }) { line.tls } else { TlsMode::None };
        return Some(Match::AllButTlsOrHttp(Treatment { tls, ..treatment }));
    }
    if reads && !offers_tls13 && line.tls != (TlsMode::Passthrough { min_tls12: true }) {
        let passes = matches!(line.tls, TlsMode::Passthrough { .. });
        let tls = if passes { TlsMode::Passthrough { min_tls12: true } } else { TlsMode::None };
        return Some(Match::AllButTlsOrHttp(Treatment { tls, ..treatment }));
    }
    Some(in_http(line, treatment, request))
}

/// A connection that is not TLS: rules that read the hello have nothing to read.
fn without_tls(line: &Line<'_>, treatment: Treatment, request: &Request<'_>) -> Match {
    let reads = matches!(line.tls, TlsMode::Passthrough { .. } | TlsMode::Inspect);
    let tcp = request.observed != Observed::Udp;
    let unproven =
        line.tls == TlsMode::Mesh && request.direction == Direction::Ingress && request.peer.is_none();
    if reads && tcp || unproven {
        return Match::AllButTlsOrHttp(Treatment { tls: TlsMode::None, ..treatment });
    }
    in_http(line, treatment, request)
}

fn in_http(line: &Line<'_>, treatment: Treatment, request: &Request<'_>) -> Match {
    if line.http_matches(request) == Some(false) { Match::AllButTlsOrHttp(treatment) } else { Match::Whole }
}
