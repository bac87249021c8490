//! A slow second engine, written straight from the precedence text over the documents themselves: every rule is looked
//! at for every request. Tests hold [`crate::PolicySet`] to it; benches show what the indexes are worth.

mod line;

use std::{cmp::Reverse, net::IpAddr};

use crate::{
    Arrival, CompileOptions, Direction, Document, Observed, Predicate, Reason, Request, Treatment, Verdict,
    address::with_embedded,
    decision::{Dial, TlsMode},
    deny_table::{Opening, denied_destination},
    document::{Action, Destination, Probe},
    host::public_labels,
};

use self::line::{Line, Specificity, Trial};

/// Policy and rule.
pub type Name = (String, String);

/// What the reference says of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The rule that decided.
    pub rule: Option<Name>,
    /// How to carry it.
    pub treatment: Option<Treatment>,
    /// The allow rule that came closest, and what it lacked.
    pub nearest: Option<(Name, Predicate)>,
}

impl Outcome {
    fn denied(reason: Reason, rule: Option<Name>, nearest: Option<(Name, Predicate)>) -> Self {
        Outcome { verdict: Verdict::Denied, reason, rule, treatment: None, nearest }
    }

    fn passes(verdict: Verdict, reason: Reason, rule: Name, treatment: Treatment) -> Self {
        Outcome { verdict, reason, rule: Some(rule), treatment: Some(treatment), nearest: None }
    }
}

/// Judges a request by documents that agree.
pub fn judge(documents: &[Document], options: &CompileOptions, request: &Request<'_>) -> Outcome {
    let applying: Vec<&Document> = documents.iter().filter(|document| applies(document, options)).collect();
    if applying.is_empty() {
        return Outcome::denied(Reason::NoPolicy, None, None);
    }
    let lines: Vec<Line<'_>> =
        applying.iter().flat_map(|document| Line::of_document(document, request.direction)).collect();
    // 1. The fixed deny table, which grants open.
    let grant = match table(&lines, options, request) {
        Ok(grant) => grant,
        Err(outcome) => return outcome,
    };
    // 2. Any matching deny.
    let denies = denies(&lines, options, request);
    if let Some(deny) = most_specific(&denies, |deny| !deny.audited && !deny.within_requests) {
        return Outcome::denied(Reason::RuleDenies, Some(deny), None);
    }
    // 3. The most specific matching allow; else 4. one whose audit tolerates what failed; else 5. denied.
    let all_audit =
        applying.iter().all(|document| document.audit_until.is_some_and(|last| request.today <= last));
    let outcome = grant.unwrap_or_else(|| allow(&lines, options, request, all_audit));
    let ordinary = matches!(outcome.reason, Reason::RuleAllows | Reason::GrantAllows);
    let probed = !ordinary && applying.iter().any(|document| is_probe(document, request));
    let outcome = if probed { PROBE } else { outcome };
    let Some(treatment) = outcome.treatment else { return outcome };
    // A deny of certain requests holds for the whole where requests stay unseen.
    let bears = |deny: &Deny| !(deny.within_requests && treatment.per_request);
    if let Some(deny) = most_specific(&denies, |deny| !deny.audited && bears(deny)) {
        return Outcome::denied(Reason::RuleDenies, Some(deny), None);
    }
    let outcome = match most_specific(&denies, bears) {
        Some(deny) => Outcome::passes(Verdict::WouldDeny, Reason::RuleDenies, deny, treatment),
        None => outcome,
    };
    // 6. Audit lets no datagram pass.
    match outcome.verdict {
        Verdict::WouldDeny if request.observed == Observed::Udp => {
            Outcome { verdict: Verdict::Denied, treatment: None, ..outcome }
        }
        _ => outcome,
    }
}

fn applies(document: &Document, options: &CompileOptions) -> bool {
    let (Some(patterns), Some(workload)) = (&document.applies_to, &options.workload) else { return true };
    patterns.iter().any(|pattern| pattern.matches(workload))
}

/// A plaintext `GET` of a declared path at its port, by somebody who proves nothing.
fn is_probe(document: &Document, request: &Request<'_>) -> bool {
    let Some(http) = request.http else { return false };
    let inbound = request.direction == Direction::Ingress && request.observed == Observed::Http;
    let plain = http.method == "GET"
        && http.upgrade.is_none()
        && request.peer.is_none()
        && request.arrival == Arrival::Plain;
    let declared = |probe: &Probe| probe.port == request.port && probe.path == *http.path;
    inbound && plain && document.probes.iter().any(declared)
}

const PROBED: Treatment = Treatment {
    dial: Dial::OriginalDestination,
    tls: TlsMode::None,
    private: false,
    per_request: true,
    demands: false,
};

const PROBE: Outcome = Outcome {
    verdict: Verdict::Allowed,
    reason: Reason::ProbeAllows,
    rule: None,
    treatment: Some(PROBED),
    nearest: None,
};

/// `Err`: denied. `Ok(Some)`: granted.
fn table(
    lines: &[Line<'_>],
    options: &CompileOptions,
    request: &Request<'_>,
) -> Result<Option<Outcome>, Outcome> {
    let (Direction::Egress, Some(address)) = (request.direction, request.address) else { return Ok(None) };
    let own = options.own_listeners.iter().any(|own| {
        let local =
            address.is_loopback() || address.is_unspecified() || options.local_addresses.contains(&address);
        own.port() == request.port && (own.ip() == address || own.ip().is_unspecified() && local)
    });
    let granted = |meant: &dyn Fn(&Opening) -> bool| {
        let allows = lines.iter().filter(|line| line.action == Action::Allow);
        let granting = allows.filter(|line| {
            let in_ports = |opening: &&Opening| line.ports.is_empty() || line.has_port(opening.port);
            line.openings().filter(in_ports).any(|opening| opening.address == address && meant(opening))
        });
        granting.map(Line::name).min()
    };
    let near = || {
        let at_port =
            granted(&|opening| opening.port == request.port).map(|rule| (rule, Predicate::Protocol));
        let first = lines.iter().flat_map(Line::openings).filter(|opening| opening.address == address);
        let ports = first.map(|opening| opening.port).collect::<std::collections::BTreeSet<_>>();
        let mut others = ports.into_iter().filter_map(|port| granted(&|opening| opening.port == port));
        at_port.or_else(|| others.next().map(|rule| (rule, Predicate::Port)))
    };
    if own {
        return Err(Outcome::denied(Reason::AddressOwnListener, None, near()));
    }
    let Some(reason) = denied_destination(address) else { return Ok(None) };
    let udp = request.observed == Observed::Udp;
    let opens =
        |opening: &Opening| opening.address == address && opening.port == request.port && opening.udp == udp;
    let allows = lines.iter().filter(|line| line.action == Action::Allow);
    let given = allows.filter(|line| line.ports.is_empty() || line.has_port(request.port)).flat_map(|line| {
        line.grants().filter(|grant| grant.openings().iter().any(opens)).map(|grant| (grant, line.name()))
    });
    let given: std::collections::BTreeSet<_> = given.collect();
    let admitting = given.iter().find(|(grant, _)| grant.admits(request.observed, request.http).is_ok());
    if let Some((_, rule)) = admitting {
        let treatment = Treatment { per_request: !udp, ..PROBED };
        return Ok(Some(Outcome::passes(Verdict::Allowed, Reason::GrantAllows, rule.clone(), treatment)));
    }
    let refused = given.first().and_then(|(grant, rule)| {
        let (reason, failed) = grant.admits(request.observed, request.http).err()?;
        Some(Outcome::denied(reason, None, Some((rule.clone(), failed))))
    });
    Err(refused.unwrap_or_else(|| Outcome::denied(reason, None, near())))
}

/// A deny rule that matches.
struct Deny {
    at: Specificity,
    rule: Reverse<Name>,
    audited: bool,
    /// Its `http` entries can be judged only once a request is seen.
    within_requests: bool,
}

fn most_specific(denies: &[Deny], counts: impl Fn(&Deny) -> bool) -> Option<Name> {
    let counting = denies.iter().filter(|deny| counts(deny));
    counting.max_by_key(|deny| (deny.at, &deny.rule)).map(|deny| deny.rule.0.clone())
}

fn denies(lines: &[Line<'_>], options: &CompileOptions, request: &Request<'_>) -> Vec<Deny> {
    let addresses: Vec<IpAddr> =
        request.address.map_or([None; 3], with_embedded).into_iter().flatten().collect();
    let mut found = Vec::new();
    for line in lines.iter().filter(|line| line.action == Action::Deny && line.denies_protocol(request)) {
        let http = line.http_matches(request);
        for end in line.ends.iter().filter(|_| http != Some(false)) {
            let by_grant = matches!(end, Destination::Grants(_)) && line.ports.is_empty();
            let Some(reached) = line::reach(end, options, request, &addresses) else { continue };
            if reached.excepted || !(by_grant || line.has_port(request.port)) {
                continue;
            }
            let until = [line.audit_until, line.document.audit_until];
            found.push(Deny {
                at: reached.at,
                rule: Reverse(line.name()),
                audited: until.into_iter().flatten().any(|last| request.today <= last),
                within_requests: http.is_none(),
            });
        }
    }
    found
}

fn allow(lines: &[Line<'_>], options: &CompileOptions, request: &Request<'_>, all_audit: bool) -> Outcome {
    let allows: Vec<&Line<'_>> =
        lines.iter().filter(|line| line.action == Action::Allow && !line.ports.is_empty()).collect();
    let trials: Vec<Trial> = allows.iter().flat_map(|line| line.trials(options, request)).collect();
    let matching = trials.iter().filter(|trial| trial.lack.is_none());
    if let Some(best) = matching.max_by_key(|trial| (trial.at, Reverse(trial.rate), &trial.rule)) {
        return Outcome::passes(Verdict::Allowed, Reason::RuleAllows, best.rule.0.clone(), best.treatment);
    }
    let tolerated = trials.iter().filter_map(|trial| Some((trial, trial.tolerated?)));
    if let Some((best, (reason, treatment))) = tolerated.max_by_key(|(trial, _)| (trial.at, &trial.rule)) {
        return Outcome::passes(Verdict::WouldDeny, reason, best.rule.0.clone(), treatment);
    }
    let nearest = trials.iter().max_by_key(|trial| (trial.how_far(), trial.at, &trial.rule));
    let lack = nearest.and_then(|trial| trial.lack);
    let near = nearest.zip(lack).map(|(trial, (predicate, _))| (trial.rule.0.clone(), predicate));
    let near = near.or_else(|| Some((neighbour(&allows, request)?, Predicate::Destination)));
    let covered = allows.iter().any(|line| line.has_port(request.port));
    let meshed = allows.iter().any(|line| line.is_meshed() && line.has_port(request.port));
    let reason = match default_reason(request, lack, covered) {
        Reason::NoRule | Reason::PeerNotAllowed if meshed && came_alone(request) => Reason::MeshRequired,
        reason => reason,
    };
    if !all_audit {
        return Outcome::denied(reason, None, near);
    }
    let dial = if request.address.is_some() { Dial::OriginalDestination } else { Dial::Name };
    let unguarded = Treatment { dial, tls: TlsMode::None, private: true, per_request: false, demands: false };
    let (verdict, treatment) = (Verdict::WouldDeny, Some(unguarded));
    Outcome { verdict, reason, rule: None, treatment, nearest: near }
}

/// The first rule for a name that shares more labels with the host than strangers do, and no fewer than any other.
fn neighbour(allows: &[&Line<'_>], request: &Request<'_>) -> Option<Name> {
    let (_, host) = request.host?;
    let shared = |line: &Line<'_>| {
        let labels = |name: &crate::HostName| {
            name.labels().rev().zip(host.labels().rev()).take_while(|(a, b)| a == b).count()
        };
        line.hosts().map(|pattern| labels(pattern.name())).max().unwrap_or_default()
    };
    let near = allows.iter().map(|line| (shared(line), Reverse(line.name())));
    near.filter(|(shared, _)| *shared >= 2 && *shared > public_labels(host.as_str()))
        .max()
        .map(|(_, Reverse(rule))| rule)
}

/// Towards the workload, and by no stream of the mesh.
fn came_alone(request: &Request<'_>) -> bool {
    request.direction == Direction::Ingress && request.arrival != Arrival::Mesh
}

/// What a rule that was reached says beyond its port; else what a person looks for first.
fn default_reason(request: &Request<'_>, lack: Option<(Predicate, Reason)>, covered: bool) -> Reason {
    match (lack, request.direction, request.observed) {
        (Some((predicate, reason)), ..) if !matches!(predicate, Predicate::Except | Predicate::Port) => {
            reason
        }
        (_, Direction::Egress, Observed::Tls { .. }) if request.host.is_none() => Reason::HostMissing,
        (_, Direction::Egress, Observed::Udp) => Reason::UdpRefused,
        (None, Direction::Ingress, _) if covered => Reason::PeerNotAllowed,
        _ => Reason::NoRule,
    }
}
