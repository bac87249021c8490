//! Equally specific allows that disagree on treatment: refused when the set is compiled.

use std::collections::BTreeSet;

use crate::{Diagnostic, Direction, decision::Treatment, document::Protocol};

use super::{
    RuleId,
    compile::Compiler,
    index::{Entry, Key, Rank},
    rule::{CompiledRule, End},
};

pub(super) fn disagreements(compiler: &Compiler<'_>) -> Vec<Diagnostic> {
    let mut pairs = BTreeSet::new();
    for direction in [Direction::Egress, Direction::Ingress] {
        let mut ends: Vec<&(Key, Entry)> = compiler.allows(direction).ends().iter().collect();
        ends.sort_by(|(a, _), (b, _)| a.cmp(b));
        for of_one_key in ends.chunk_by(|(a, _), (b, _)| a == b) {
            among(compiler, of_one_key, &mut pairs, |_, _| true);
        }
        let workloads: Vec<_> = ends.into_iter().filter(|(key, _)| matches!(key, Key::Workload(_))).collect();
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

/// Adds every pair of rules that can both match one connection and would carry it differently.
fn among(
    compiler: &Compiler<'_>,
    ends: &[&(Key, Entry)],
    pairs: &mut BTreeSet<(RuleId, RuleId)>,
    both_match: impl Fn(&Key, &Key) -> bool,
) {
    let carried = |(key, entry): &(Key, Entry)| carriage(compiler, key, entry);
    let Some(first) = ends.first().and_then(|end| carried(end)) else { return };
    if ends.iter().all(|end| carried(end) == Some(first)) {
        return;
    }
    let mut by_port: Vec<_> = ends.iter().filter_map(|end| Some((*end, carried(end)?))).collect();
    by_port.sort_by_key(|((_, entry), _)| entry.first_port);
    for (at, ((key, entry), (protocol, treatment))) in by_port.iter().enumerate() {
        let later = by_port.iter().skip(at + 1);
        for ((other_key, other), (other_protocol, other_treatment)) in
            later.take_while(|((_, other), _)| other.first_port <= entry.last_port)
        {
            let disagree = treatment != other_treatment && coincide(*protocol, *other_protocol);
            if disagree && both_match(key, other_key) {
                pairs.insert((entry.rule.min(other.rule), entry.rule.max(other.rule)));
            }
        }
    }
}

fn carriage(compiler: &Compiler<'_>, key: &Key, entry: &Entry) -> Option<(Protocol, Treatment)> {
    let rule: &CompiledRule = compiler.rules.get(entry.rule.0 as usize)?;
    let end = match key {
        Key::Host(_) => End::Host,
        Key::Workload(_) => End::Workload,
        Key::Group(_) | Key::Prefix(_) => End::Address,
    };
    Some((rule.protocol, rule.treatment(end, entry.private)))
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
