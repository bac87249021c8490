//! Equally specific allows that disagree on treatment: refused when the set is compiled.

use std::collections::BTreeSet;

use crate::{
    Diagnostic, Direction,
    decision::Treatment,
    demands::{ClientAddress, OriginTls},
    document::{Action, Protocol},
};

use super::{
    RuleId,
    compile::Compiler,
    layout::{Added, Key},
    rank::Rank,
    rule::{CompiledRule, End},
};

pub(super) fn disagreements(compiler: &Compiler<'_>) -> Vec<Diagnostic> {
    let mut pairs = BTreeSet::new();
    for direction in [Direction::Egress, Direction::Ingress] {
        let ends = compiler.ends(direction).iter().filter(|end| end.action == Action::Allow);
        let mut ends: Vec<&Added> = ends.collect();
        ends.sort_by(|a, b| a.key.cmp(&b.key));
        for of_one_key in ends.chunk_by(|a, b| a.key == b.key) {
            among(compiler, of_one_key, &mut pairs, |_, _| true);
        }
        let workloads: Vec<_> = ends.into_iter().filter(|end| matches!(end.key, Key::Workload(_))).collect();
        among(compiler, &workloads, &mut pairs, equally_specific);
    }
    pairs.into_iter().filter_map(|(first, second)| disagreement(compiler, first, second)).collect()
}

fn equally_specific(a: &Key, b: &Key) -> bool {
    match (a, b) {
        (Key::Workload(a), Key::Workload(b)) => Rank::workload(a) == Rank::workload(b) && a.overlaps(b),
        _ => false,
    }
}

/// One end at one range of ports.
#[derive(Clone, Copy)]
struct Piece<'a> {
    end: &'a Added,
    ports: (u16, u16),
    protocol: Protocol,
    carried: Carried<'a>,
}

/// How a rule carries connections. Limits are none of it: they hold for requests, which `http` may tell apart.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Carried<'a> {
    treatment: Treatment,
    origin: Option<&'a OriginTls>,
    certificate: Option<&'a str>,
    client_address: Option<ClientAddress>,
}

/// Adds every pair of rules that can both match one connection and would carry it differently.
fn among(
    compiler: &Compiler<'_>,
    ends: &[&Added],
    pairs: &mut BTreeSet<(RuleId, RuleId)>,
    both_match: impl Fn(&Key, &Key) -> bool,
) {
    let carried = |end: &Added| carriage(compiler, end);
    let Some(first) = ends.first().and_then(|end| carried(end)) else { return };
    if ends.iter().all(|end| carried(end) == Some(first)) {
        return;
    }
    let mut by_port: Vec<Piece<'_>> = ends.iter().flat_map(|end| pieces(compiler, end)).collect();
    by_port.sort_by_key(|piece| piece.ports);
    for (at, piece) in by_port.iter().enumerate() {
        let later = by_port.iter().skip(at + 1);
        for other in later.take_while(|other| other.ports.0 <= piece.ports.1) {
            let disagree = piece.carried != other.carried && coincide(piece.protocol, other.protocol);
            if disagree && both_match(&piece.end.key, &other.end.key) {
                let (one, two) = (piece.end.entry.rule, other.end.entry.rule);
                pairs.insert((one.min(two), one.max(two)));
            }
        }
    }
}

fn pieces<'a>(compiler: &'a Compiler<'_>, end: &'a Added) -> impl Iterator<Item = Piece<'a>> {
    let ports = compiler.rules.get(end.entry.rule.0 as usize).map(|rule| &*rule.ports);
    let ranges = ports.unwrap_or_default().iter().map(|range| (*range.start(), *range.end()));
    let carried = carriage(compiler, end);
    ranges.filter_map(move |ports| {
        let (protocol, carried) = carried?;
        Some(Piece { end, ports, protocol, carried })
    })
}

fn carriage<'a>(compiler: &'a Compiler<'_>, added: &Added) -> Option<(Protocol, Carried<'a>)> {
    let rule: &CompiledRule = compiler.rules.get(added.entry.rule.0 as usize)?;
    let end = match added.key {
        Key::Host(_) => End::Host,
        Key::Workload(_) => End::Workload,
        Key::Group(_) | Key::Prefix(_) => End::Address,
    };
    let demands = rule.demands.as_ref();
    let carried = Carried {
        treatment: Treatment { demands: false, ..rule.treatment(end, added.entry.private) },
        origin: demands.map(|demands| &demands.origin).filter(|origin| **origin != OriginTls::default()),
        certificate: demands.and_then(|demands| demands.certificate.as_deref()),
        client_address: demands.and_then(|demands| demands.client_address),
    };
    Some((rule.protocol, carried))
}

/// Whether one connection can match rules of both protocols.
fn coincide(a: Protocol, b: Protocol) -> bool {
    match (a, b) {
        (Protocol::Tcp, other) | (other, Protocol::Tcp) => other != Protocol::Udp,
        _ => a == b,
    }
}

fn disagreement(compiler: &Compiler<'_>, first: RuleId, second: RuleId) -> Option<Diagnostic> {
    let name = |id: RuleId| {
        let facts = &compiler.rules.get(id.0 as usize)?.facts;
        Some(format!("`{}` of policy `{}`", facts.name, facts.policy))
    };
    let (earlier, earlier_span) = compiler.origins.get(first.0 as usize)?;
    let (source, span) = compiler.origins.get(second.0 as usize)?;
    let (line, _) = earlier.place(earlier_span.start);
    let message = format!(
        "rule {} and rule {} ({}:{line}) are equally specific for the same connections, but carry them differently",
        name(second)?,
        name(first)?,
        earlier.name
    );
    let fix = "give both the same `protocol`, `tls` and `private`, or make one of them more specific";
    let diagnostic = Diagnostic::new(source, "ambiguous-overlap", span.clone(), message, fix);
    Some(diagnostic.with_related(earlier.name.clone(), earlier_span.clone(), "the rule it disagrees with"))
}
