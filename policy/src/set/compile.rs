//! Documents to a set: which apply, in what order, and where each end of each rule is found.

use std::{
    net::{IpAddr, SocketAddr},
    ops::Range,
    sync::Arc,
};

use ipnet::IpNet;

use crate::{
    Date, Diagnostic, Direction, Document, Source,
    address::host_net,
    decision::TlsMode,
    deny_table::{Grant, Opening},
    document::{Action, Destination, Origin, Protocol, Rule},
};

use super::{
    CompileOptions, PolicySet, RuleFacts, RuleId, Side,
    hosts::HostKey,
    layout::{Added, IndexBuilder, Key, NewEntry, Ports},
    overlap, ports,
    rule::CompiledRule,
    udp,
};

pub(super) fn compile(
    documents: &[Document],
    options: &CompileOptions,
) -> Result<PolicySet, Vec<Diagnostic>> {
    let mut ordered: Vec<&Document> = documents.iter().collect();
    ordered.sort_by(|a, b| a.name.value.cmp(&b.name.value));
    let mut diagnostics = duplicate_names(&ordered);
    ordered.retain(|document| options.counts(document));

    let mut compiler = Compiler {
        options,
        rules: Vec::new(),
        origins: Vec::new(),
        sides: Default::default(),
        grants: Vec::new(),
    };
    for document in &ordered {
        compiler.add(document);
    }
    diagnostics.extend(overlap::disagreements(&compiler));
    if !diagnostics.is_empty() {
        return Err(diagnostics);
    }
    let mut set = compiler.finish();
    set.policies = ordered.len();
    set.probes = ordered.iter().flat_map(|document| &document.probes).cloned().collect();
    set.audit_until = audit_of_all(&ordered);
    set.udp = udp::destinations(&set.rules, options).into();
    Ok(set)
}

/// The default deny is enforced unless every policy is in audit.
fn audit_of_all(documents: &[&Document]) -> Option<Date> {
    documents.iter().map(|document| document.audit_until).min().flatten()
}

fn duplicate_names(ordered: &[&Document]) -> Vec<Diagnostic> {
    let pairs = ordered.iter().zip(ordered.iter().skip(1));
    let same = pairs.filter(|(a, b)| a.name.value == b.name.value);
    same.map(|(first, second)| {
        let message = format!("two policies are named `{}`", first.name.value);
        let fix = "rename one of them; a name stands for one policy";
        Diagnostic::new(&second.source, "duplicate-policy", second.name.span.clone(), message, fix)
            .with_related(first.source.name.clone(), first.name.span.clone(), "the other policy of that name")
    })
    .collect()
}

/// Gathers rules and their ends.
pub(super) struct Compiler<'a> {
    options: &'a CompileOptions,
    pub(super) rules: Vec<CompiledRule>,
    /// Where each rule was written.
    pub(super) origins: Vec<(&'a Source, Range<usize>)>,
    /// Egress, ingress.
    sides: [IndexBuilder; 2],
    grants: Vec<(Opening, Grant, RuleId)>,
}

impl<'a> Compiler<'a> {
    fn add(&mut self, document: &'a Document) {
        let mut egress: Vec<_> = document.egress.iter().collect();
        egress.sort_by(|a, b| a.name.value.cmp(&b.name.value));
        for rule in egress {
            let ends = rule.ends.iter().map(|end| end.value.clone()).collect();
            self.add_rule(document, Direction::Egress, rule, ends);
        }
        let mut ingress: Vec<_> = document.ingress.iter().collect();
        ingress.sort_by(|a, b| a.name.value.cmp(&b.name.value));
        for rule in ingress {
            let ends = rule.ends.iter().map(|end| end_of(&end.value)).collect();
            self.add_rule(document, Direction::Ingress, rule, ends);
        }
    }

    fn add_rule<T>(
        &mut self,
        document: &'a Document,
        direction: Direction,
        rule: &Rule<T>,
        ends: Vec<Destination>,
    ) {
        let Ok(id) = u32::try_from(self.rules.len()).map(RuleId) else { return };
        let (line, _) = document.source.place(rule.name.span.start);
        let policy_audit = document.audit_until.filter(|_| rule.action == Action::Deny);
        let compiled = CompiledRule {
            facts: RuleFacts {
                policy: document.name.value.as_str().into(),
                name: rule.name.value.as_str().into(),
                reason: rule.reason.as_deref().map(Into::into),
                place: (document.source.name.as_ref().into(), line),
            },
            direction,
            action: rule.action,
            ends,
            ports: ports::normalized(&rule.ports),
            protocol: inside(direction, rule),
            tls: rule.tls,
            demands: (!rule.demands.is_empty()).then(|| Arc::new(rule.demands.clone())),
            http: rule.http.as_slice().into(),
            audit_until: rule.audit_until.max(policy_audit),
        };
        self.index_ends(id, &compiled);
        self.rules.push(compiled);
        self.origins.push((&document.source, rule.name.span.clone()));
    }

    fn index_ends(&mut self, id: RuleId, rule: &CompiledRule) {
        for end in &rule.ends {
            let (keys, private, except) = self.keys(end);
            let builder = &mut self.sides[rule.direction as usize];
            let except = builder.except(except);
            if let Some(ports) = builder.ports(&rule.ports) {
                let new = NewEntry { rule: id, action: rule.action, ports, private, except };
                keys.into_iter().for_each(|key| builder.add(key, new));
            }
            if let Destination::Grants(grants) = end {
                self.add_grants(id, rule, grants);
            }
        }
    }

    /// What an end is found by, whether it is `private`, and its `except`.
    fn keys<'e>(&self, end: &'e Destination) -> (Vec<Key>, bool, &'e [IpNet]) {
        match end {
            Destination::Hosts { hosts, private } => {
                (hosts.iter().map(|host| Key::Host(HostKey::of(host))).collect(), *private, &[])
            }
            Destination::Cidrs { cidrs, except } => {
                (cidrs.iter().map(|net| Key::Prefix(net.trunc())).collect(), false, except)
            }
            Destination::SecurityGroups(ids) | Destination::PrefixLists(ids) => {
                let nets = ids.iter().filter_map(|id| self.options.groups.get(id)).flatten();
                (nets.map(|net| Key::Group(net.trunc())).collect(), false, &[])
            }
            Destination::Workloads(patterns) => {
                (patterns.iter().cloned().map(Key::Workload).collect(), false, &[])
            }
            Destination::Grants(_) => (Vec::new(), false, &[]),
        }
    }

    /// A grant is narrowed by the rule's ports, where it has any. Denied grants are denied addresses.
    fn add_grants(&mut self, id: RuleId, rule: &CompiledRule, grants: &[Grant]) {
        let openings =
            grants.iter().flat_map(|grant| grant.openings().iter().map(|opening| (*grant, opening)));
        for (grant, opening) in openings {
            if !rule.ports.is_empty() && !rule.ports.iter().any(|range| range.contains(&opening.port)) {
                continue;
            }
            if rule.action == Action::Allow {
                self.grants.push((*opening, grant, id));
            } else {
                let ports = Ports::single(opening.port);
                let new = NewEntry { rule: id, action: rule.action, ports, private: false, except: None };
                self.sides[rule.direction as usize].add(Key::Prefix(host_net(opening.address)), new);
            }
        }
    }

    /// The ends of one direction.
    pub(super) fn ends(&self, direction: Direction) -> &[Added] {
        self.sides[direction as usize].ends()
    }

    fn finish(self) -> PolicySet {
        let Compiler { options, rules, sides: [egress, ingress], mut grants, .. } = self;
        let hosts_at = hosts_at(&rules);
        let host_denies = host_denies(&rules);
        let requests_denied_at = requests_denied_at(&rules);
        let meshed_at = meshed_at(&rules);
        grants.sort_unstable_by_key(|(opening, grant, rule)| {
            (opening.address, opening.port, opening.udp, *grant, *rule)
        });
        grants.dedup_by_key(|(opening, grant, _)| (*opening, *grant));
        PolicySet {
            generation: options.generation,
            egress: side(egress, &rules, Direction::Egress),
            ingress: side(ingress, &rules, Direction::Ingress),
            rules: rules.into(),
            grants: grants.into(),
            own_listeners: options.own_listeners.iter().map(canonical).collect(),
            local_addresses: options.local_addresses.iter().map(IpAddr::to_canonical).collect(),
            hosts_at,
            host_denies,
            requests_denied_at,
            meshed_at,
            groups: options.groups.values().flatten().map(IpNet::trunc).collect(),
            ..PolicySet::default()
        }
    }
}

/// What a rule's connections speak where they are judged: inside TLS that the proxy ends there may be anything.
fn inside<T>(direction: Direction, rule: &Rule<T>) -> Protocol {
    match (direction, rule.action, rule.tls, rule.protocol) {
        (Direction::Ingress, Action::Allow, TlsMode::Terminate, Protocol::Tls) => Protocol::Tcp,
        (.., protocol) => protocol,
    }
}

fn side(index: IndexBuilder, rules: &[CompiledRule], direction: Direction) -> Side {
    let mut ports = ports::PortSet::default();
    let covering = rules.iter().filter(|rule| rule.direction == direction && rule.action == Action::Allow);
    for range in covering.flat_map(|rule| &rule.ports) {
        ports.add(range.clone());
    }
    Side { index: index.build(), ports }
}

/// Ports at which a name in the first bytes may decide: of allow rules that read them, and of any deny rule by host.
fn hosts_at(rules: &[CompiledRule]) -> ports::PortSet {
    let mut set = ports::PortSet::default();
    let by_host = rules.iter().filter(|rule| {
        let names_hosts = rule.ends.iter().any(|end| matches!(end, Destination::Hosts { .. }));
        let reads = rule.action == Action::Deny || matches!(rule.protocol, Protocol::Tls | Protocol::Http);
        rule.direction == Direction::Egress && names_hosts && reads
    });
    for range in by_host.flat_map(|rule| &rule.ports) {
        set.add(range.clone());
    }
    set
}

/// Ports at which an egress deny rule holds for HTTP alone.
fn requests_denied_at(rules: &[CompiledRule]) -> ports::PortSet {
    let mut set = ports::PortSet::default();
    let denies = rules.iter().filter(|rule| {
        rule.direction == Direction::Egress && rule.action == Action::Deny && rule.is_for_requests()
    });
    for range in denies.flat_map(|rule| &rule.ports) {
        set.add(range.clone());
    }
    set
}

/// Ports at which some ingress allow rule takes streams of the mesh.
fn meshed_at(rules: &[CompiledRule]) -> ports::PortSet {
    let mut set = ports::PortSet::default();
    let meshed = rules.iter().filter(|rule| {
        rule.direction == Direction::Ingress && rule.action == Action::Allow && rule.tls == TlsMode::Mesh
    });
    for range in meshed.flat_map(|rule| &rule.ports) {
        set.add(range.clone());
    }
    set
}

/// The egress deny rules by host.
fn host_denies(rules: &[CompiledRule]) -> Box<[RuleId]> {
    let by_host = (0..).map(RuleId).zip(rules).filter(|(_, rule)| {
        let names_hosts = rule.ends.iter().any(|end| matches!(end, Destination::Hosts { .. }));
        rule.direction == Direction::Egress && rule.action == Action::Deny && names_hosts
    });
    by_host.map(|(id, _)| id).collect()
}

/// Requests carry unwrapped addresses.
fn canonical(listener: &SocketAddr) -> SocketAddr {
    SocketAddr::new(listener.ip().to_canonical(), listener.port())
}

fn end_of(origin: &Origin) -> Destination {
    match origin {
        Origin::Workloads(patterns) => Destination::Workloads(patterns.clone()),
        Origin::Cidrs { cidrs, except } => {
            Destination::Cidrs { cidrs: cidrs.clone(), except: except.clone() }
        }
        Origin::SecurityGroups(ids) => Destination::SecurityGroups(ids.clone()),
        Origin::PrefixLists(ids) => Destination::PrefixLists(ids.clone()),
    }
}
