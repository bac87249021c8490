//! What the pipeline of connections towards the workload asks beside the verdict itself.

use crate::{
    Arrival, Demands, Observed, Request, address::with_embedded, decision::TlsMode, demands::NONE,
    document::Protocol,
};

use super::{
    Peek, PolicySet,
    index::Spot,
    names::{covering, denies_by_bytes},
    rank::Rank,
    rule::CompiledRule,
};

pub(super) fn peek(set: &PolicySet, request: &Request<'_>) -> Peek {
    let port = request.port;
    let mut needed = request.arrival == Arrival::Plain && set.has_probe_at(port);
    let mut opaque = false;
    set.ingress.index.visit(request, Rank::NONE, |spot| {
        for rule in covering(spot.allows(), set, port) {
            let (reads, takes) = by_rule(rule, request.arrival);
            needed |= reads;
            opaque |= takes;
        }
        needed |= denies_by_bytes(set, spot, port);
        Rank::NONE
    });
    // Deny rules hold for the IPv4 addresses that an IPv6 address carries; allow rules don't.
    let embedded = request.address.map_or([None; 3], with_embedded);
    for carried in embedded.into_iter().flatten().filter(|carried| Some(*carried) != request.address) {
        set.ingress.index.visit_address(carried, Rank::ALL, |spot| {
            needed |= denies_by_bytes(set, spot, port);
            Rank::ALL
        });
    }
    match (needed, opaque) {
        (true, _) => Peek::Needed,
        (false, true) => Peek::Unneeded,
        (false, false) => Peek::Brief,
    }
}

/// Whether an allow rule reads the first bytes of what arrived so, and whether it takes it without.
fn by_rule(rule: &CompiledRule, arrival: Arrival) -> (bool, bool) {
    let reads = rule.looks_at_bytes();
    match (arrival, rule.tls) {
        (Arrival::Plain, TlsMode::Mesh) => (false, false),
        (Arrival::Plain, TlsMode::Terminate) => (true, false),
        (Arrival::Terminated, TlsMode::Mesh) => (false, false),
        _ => (reads, !reads),
    }
}

pub(super) fn terminating<'s>(set: &'s PolicySet, request: &Request<'_>) -> Option<&'s Demands> {
    if request.arrival != Arrival::Plain || !matches!(request.observed, Observed::Tls { .. }) {
        return None;
    }
    let mut best: Option<(Rank, Option<&'s Demands>)> = None;
    set.ingress.index.visit(request, Rank::NONE, |spot: Spot<'_>| {
        for rule in covering(spot.allows(), set, request.port) {
            let ends = rule.tls == TlsMode::Terminate;
            let carries = rule.tls != TlsMode::Mesh && matches!(rule.protocol, Protocol::Tls | Protocol::Tcp);
            if !ends && !carries {
                continue;
            }
            let demands = ends.then(|| rule.demands.as_deref().unwrap_or(&NONE));
            // Of equals the stricter one.
            if best.is_none_or(|best| strictness((spot.rank, demands)) > strictness(best)) {
                best = Some((spot.rank, demands));
            }
        }
        best.map_or(Rank::NONE, |(rank, _)| rank)
    });
    best.and_then(|(_, demands)| demands)
}

/// Ends before not, and a named certificate before none; of two names always the same one.
fn strictness((rank, demands): (Rank, Option<&Demands>)) -> (Rank, Option<Option<&str>>) {
    (rank, demands.map(|demands| demands.certificate.as_deref()))
}
