//! Documents compiled into one immutable set that judges without allocating.

mod addresses;
mod cells;
mod compile;
mod decide;
mod hosts;
mod inbound;
mod index;
mod layout;
mod names;
mod overlap;
mod peers;
mod ports;
mod rank;
pub(crate) mod rule;
#[cfg(test)]
mod tests;
mod udp;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    sync::Arc,
};

use ipnet::IpNet;

use crate::{
    Arrival, Date, Decision, Demands, Diagnostic, Direction, Document, HostName, NameDecision, Observed,
    Reason, Request, SpiffeId, demands,
    deny_table::{Grant, Opening},
    document::Probe,
};

use self::{
    index::Index,
    ports::PortSet,
    rule::{CompiledRule, Miss},
};

/// Number of a policy set; rises with every change a proxy applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

/// Index of a rule within one [`PolicySet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub(crate) u32);

/// What a record or explanation says of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFacts {
    /// The policy's name.
    pub policy: Box<str>,
    /// The rule's name.
    pub name: Box<str>,
    /// The rule's `reason`.
    pub reason: Option<Box<str>>,
    /// File and 1-based line of the rule.
    pub place: (Box<str>, usize),
}

/// What compiling needs beside the documents.
#[derive(Clone, Debug, Default)]
pub struct CompileOptions {
    /// Only documents whose `appliesTo` matches count; `None`: those without `appliesTo` and all others alike.
    pub workload: Option<SpiffeId>,
    /// The generation that decisions will carry.
    pub generation: Generation,
    /// The proxy's own listeners, never reachable. An unspecified address stands for every local one: loopback and
    /// [`CompileOptions::local_addresses`].
    pub own_listeners: Vec<SocketAddr>,
    /// Addresses of the interfaces that the listeners stand on.
    pub local_addresses: Vec<IpAddr>,
    /// Addresses of security groups and prefix lists by id; a group that is absent or empty matches nothing.
    pub groups: BTreeMap<String, Vec<IpNet>>,
}

impl CompileOptions {
    /// Whether a document applies: it names no workloads, or this one, or the workload is not known.
    pub fn counts(&self, document: &Document) -> bool {
        match (&document.applies_to, &self.workload) {
            (Some(patterns), Some(workload)) => patterns.iter().any(|pattern| pattern.matches(workload)),
            _ => true,
        }
    }
}

/// Whether a connection's first bytes must be read before it can be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peek {
    /// Some rule at this port looks at TLS or HTTP: classify first.
    Needed,
    /// An opaque rule allows it as it is, or the fixed table denies it: judge at once, never wait.
    Unneeded,
    /// Nothing that the bytes show can allow it. A look at what comes at once makes its record and its refusal say
    /// more (and in audit mode its suggested rule), but nobody waits for it.
    Brief,
}

/// Datagrams that may leave: after `except` and deny rules are subtracted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpDestination {
    /// Destination addresses.
    pub net: IpNet,
    /// Destination ports.
    pub ports: RangeInclusive<u16>,
}

/// Why one resolved address may not be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerRefused {
    /// The fixed table's reason, or [`Reason::RuleDenies`].
    pub reason: Reason,
    /// The deny rule.
    pub rule: Option<RuleId>,
}

/// The compiled, immutable policies of one workload.
#[derive(Debug, Default)]
pub struct PolicySet {
    generation: Generation,
    /// Policies that apply; without any, everything is denied.
    policies: usize,
    /// In the order of policy name, direction, rule name: a [`RuleId`] does not depend on the order of input.
    rules: Box<[CompiledRule]>,
    egress: Side,
    ingress: Side,
    /// Triples that grants open, each grant with the first rule that gives it. Few.
    grants: Box<[(Opening, Grant, RuleId)]>,
    own_listeners: Box<[SocketAddr]>,
    local_addresses: Box<[IpAddr]>,
    /// Last day on which the default deny is not enforced: every policy is in audit.
    audit_until: Option<Date>,
    /// Ports at which a host in the first bytes may decide.
    hosts_at: PortSet,
    /// Egress deny rules by host. Few.
    host_denies: Box<[RuleId]>,
    /// Ports at which deny rules hold for HTTP alone.
    requests_denied_at: PortSet,
    /// Ports at which some ingress rule takes streams of the mesh.
    meshed_at: PortSet,
    groups: Box<[IpNet]>,
    udp: Box<[UdpDestination]>,
    /// Few.
    probes: Box<[Probe]>,
}

/// The rules of one direction.
#[derive(Debug, Default)]
struct Side {
    index: Index,
    /// Ports that some allow rule covers.
    ports: PortSet,
}

impl PolicySet {
    /// Compiles documents.
    ///
    /// # Errors
    /// Two equally specific allows that disagree on treatment, and duplicate policy names, each with both places.
    pub fn compile(documents: &[Document], options: &CompileOptions) -> Result<PolicySet, Vec<Diagnostic>> {
        compile::compile(documents, options)
    }

    /// A set without policies: everything is denied with [`Reason::NoPolicy`].
    pub fn empty(generation: Generation) -> PolicySet {
        PolicySet { generation, ..PolicySet::default() }
    }

    /// The set's generation.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Judges one connection or request. Pure and free of allocation.
    ///
    /// In order: the fixed deny table (opened by grants); any matching deny; the most specific matching allow
    /// (exact host, longest wildcard, workload, group, longest prefix); audit; the default deny.
    ///
    /// A request whose host came from a synthetic address or an explicit target and whose first bytes name a host
    /// too must carry equal names; the caller has compared them.
    pub fn decide(&self, request: &Request<'_>) -> Decision {
        decide::decide(self, request)
    }

    /// Judges one address that the request's host resolved to, after [`PolicySet::decide`] permitted dialling by name:
    /// the fixed table for names, own listeners, and deny rules by address or by `request.peer`, which is here the
    /// workload that is known to be at the answer.
    pub fn judge_answer(
        &self,
        request: &Request<'_>,
        decision: &Decision,
        answer: IpAddr,
    ) -> Result<(), AnswerRefused> {
        names::judge_answer(self, request, decision, answer)
    }

    /// Whether DNS may ask upstream for a name, and how to answer.
    pub fn judge_name(&self, host: &HostName, today: Date) -> NameDecision {
        names::judge_name(self, host, today)
    }

    /// The most specific egress rule that allows something to a workload. Whether it allows a connection is
    /// [`PolicySet::decide`]'s to say; a name of the workload may be answered where there is one.
    pub fn rule_for_peer(&self, peer: &SpiffeId) -> Option<RuleId> {
        names::rule_for_peer(self, peer)
    }

    /// Whether the first bytes must be read before judging. `synthetic`: the name behind a synthetic address; `peer`: the
    /// workload that is known to be at the address.
    ///
    /// Where a deny rule names hosts at the port, the bytes must be read too: an opaque address rule must not lead
    /// round it.
    pub fn peek(
        &self,
        address: Option<IpAddr>,
        synthetic: Option<&HostName>,
        peer: Option<&SpiffeId>,
        port: u16,
    ) -> Peek {
        names::peek(self, address, synthetic, peer, port)
    }

    /// As [`PolicySet::peek`], of a connection towards the workload from `client`. `request` holds what is known before the
    /// first bytes: source, port, arrival, peer.
    pub fn peek_inbound(&self, request: &Request<'_>) -> Peek {
        inbound::peek(self, request)
    }

    /// Whether the proxy is to end the TLS of a connection towards the workload that shows a ClientHello: of the rules
    /// that could carry it the most specific one says `terminate`. What is inside is judged then.
    pub fn terminates(&self, request: &Request<'_>) -> bool {
        self.terminating(request).is_some()
    }

    /// The same, with what that rule demands.
    pub fn terminating(&self, request: &Request<'_>) -> Option<&Demands> {
        inbound::terminating(self, request)
    }

    /// Allowed datagram destinations, disjoint where that is cheap. Deny rules in audit count as enforced here,
    /// since datagrams are judged by the kernel, which keeps no record.
    pub fn udp_destinations(&self) -> &[UdpDestination] {
        &self.udp
    }

    /// An enforced deny rule by host that covers this egress port, if there is one: then a connection that hides the
    /// host it is for must not pass by an address rule, or every deny by host could be walked round.
    pub fn host_deny_at(&self, port: u16, today: Date) -> Option<RuleId> {
        let covers = |id: &&RuleId| {
            self.compiled(**id).is_some_and(|rule| {
                !rule.in_audit(today) && rule.ports.iter().any(|range| range.contains(&port))
            })
        };
        self.host_denies.iter().find(covers).copied()
    }

    /// Whether a failure of this rule's demands that shows only after the verdict (the server's TLS version) is
    /// recorded rather than enforced on that day.
    pub fn audits(&self, rule: RuleId, today: Date) -> bool {
        self.audits_all(today) || self.compiled(rule).is_some_and(|rule| rule.in_audit(today))
    }

    /// What a rule is called and where it stands. Panics if the id is of another set.
    pub fn rule(&self, rule: RuleId) -> &RuleFacts {
        &self.rules[rule.0 as usize].facts
    }

    /// Whether some rule has the workload's TLS opened.
    pub fn inspects(&self) -> bool {
        self.rules().any(|(_, rule)| {
            rule.tls == crate::decision::TlsMode::Inspect && rule.action == crate::document::Action::Allow
        })
    }

    /// What a rule demands beside its treatment; `None`: nothing. Of a rule of another set it says nothing sensible.
    pub fn demands(&self, rule: RuleId) -> Option<&Arc<Demands>> {
        self.compiled(rule)?.demands.as_ref()
    }

    /// The rules that demand something of the servers they lead to, and what.
    pub fn origins(&self) -> impl Iterator<Item = (&RuleFacts, &demands::OriginTls)> {
        self.rules()
            .filter_map(|(_, rule)| Some((&rule.facts, &rule.demands.as_ref()?.origin)))
            .filter(|(_, origin)| **origin != demands::OriginTls::default())
    }

    /// The rules that name a certificate for clients, and its label.
    pub fn certificates(&self) -> impl Iterator<Item = (&RuleFacts, &str)> {
        self.rules()
            .filter_map(|(_, rule)| Some((&rule.facts, rule.demands.as_ref()?.certificate.as_deref()?)))
    }

    /// What the rule demands that a decision of this set rests on.
    pub fn demands_of(&self, decision: &Decision) -> &Demands {
        decision.rule.and_then(|rule| self.demands(rule)).map_or(&demands::NONE, AsRef::as_ref)
    }

    /// Every declared health probe.
    pub fn probes(&self) -> &[Probe] {
        &self.probes
    }

    /// Whether some declared health probe comes to this port: plaintext HTTP there has to be read to be judged.
    pub fn has_probe_at(&self, port: u16) -> bool {
        self.probes.iter().any(|probe| probe.port == port)
    }

    /// Whether a request is a declared health probe: exact port and path, a plaintext `GET` of nobody in particular.
    /// [`PolicySet::decide`] allows it, unless a deny rule matches. The caller has seen that there is neither a query nor
    /// a body.
    pub fn is_probe(&self, request: &Request<'_>) -> bool {
        let plain =
            request.observed == Observed::Http && request.arrival == Arrival::Plain && request.peer.is_none();
        let Some(http) = request.http.filter(|_| plain && request.direction == Direction::Ingress) else {
            return false;
        };
        let is_get = http.method == "GET" && http.upgrade.is_none();
        is_get && self.probes.iter().any(|probe| probe.port == request.port && probe.path == *http.path)
    }

    /// Every rule, in order.
    pub(crate) fn rules(&self) -> impl Iterator<Item = (RuleId, &CompiledRule)> {
        (0..).map(RuleId).zip(&self.rules)
    }

    /// Prefixes of every group that was resolved when the set was compiled.
    pub(crate) fn group_nets(&self) -> impl Iterator<Item = IpNet> {
        self.groups.iter().copied()
    }

    /// Every allow rule that the request reached, and where it failed last.
    pub(crate) fn misses(&self, request: &Request<'_>) -> BTreeMap<RuleId, Miss> {
        decide::misses(self, request)
    }

    fn compiled(&self, rule: RuleId) -> Option<&CompiledRule> {
        self.rules.get(rule.0 as usize)
    }

    fn side(&self, direction: Direction) -> &Side {
        match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        }
    }

    fn audits_all(&self, today: Date) -> bool {
        self.audit_until.is_some_and(|last| today <= last)
    }

    fn is_own_listener(&self, address: IpAddr, port: u16) -> bool {
        let local = |address: IpAddr| address.is_loopback() || address.is_unspecified();
        self.own_listeners.iter().filter(|own| own.port() == port).any(|own| {
            own.ip() == address
                || own.ip().is_unspecified() && (local(address) || self.local_addresses.contains(&address))
        })
    }
}
