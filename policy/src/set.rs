//! Documents compiled into one immutable set that judges without allocating.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use ipnet::IpNet;

use crate::{Date, Decision, Diagnostic, Document, HostName, NameDecision, Reason, Request, SpiffeId};

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
    /// The proxy's own listeners, never reachable. An unspecified address stands for every local one.
    pub own_listeners: Vec<SocketAddr>,
    /// Addresses of security groups and prefix lists by id; a group that is absent or empty matches nothing.
    pub groups: BTreeMap<String, Vec<IpNet>>,
}

/// Whether a connection's first bytes must be read before it can be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peek {
    /// Some rule at this port looks at TLS or HTTP: classify first.
    Needed,
    /// Only opaque address rules (or nothing at all) can match: judge at once, never wait.
    Unneeded,
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
#[derive(Debug)]
pub struct PolicySet {
    generation: Generation,
}

impl PolicySet {
    /// Compiles documents.
    ///
    /// # Errors
    /// Two equally specific allows that disagree on treatment, and duplicate policy names, each with both places.
    pub fn compile(documents: &[Document], options: &CompileOptions) -> Result<PolicySet, Vec<Diagnostic>> {
        let _ = (documents, options);
        todo!()
    }

    /// A set without policies: everything is denied with [`Reason::NoPolicy`].
    pub fn empty(generation: Generation) -> PolicySet {
        PolicySet { generation }
    }

    /// The set's generation.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Judges one connection or request. Pure and free of allocation.
    ///
    /// In order: the fixed deny table (opened by grants); any matching deny; the most specific matching allow
    /// (exact host, longest wildcard, workload, group, longest prefix); audit; the default deny.
    pub fn decide(&self, request: &Request<'_>) -> Decision {
        let _ = request;
        todo!()
    }

    /// Judges one address that the request's host resolved to, after [`PolicySet::decide`] permitted dialling by name:
    /// the fixed table for names, own listeners, and deny rules by address.
    pub fn judge_answer(&self, request: &Request<'_>, decision: &Decision, answer: IpAddr) -> Result<(), AnswerRefused> {
        let _ = (request, decision, answer);
        todo!()
    }

    /// Whether DNS may ask upstream for a name, and how to answer.
    pub fn judge_name(&self, host: &HostName, today: Date) -> NameDecision {
        let _ = (host, today);
        todo!()
    }

    /// Whether the first bytes must be read before judging. `synthetic`: the name behind a synthetic address.
    pub fn peek(&self, address: Option<IpAddr>, synthetic: Option<&HostName>, port: u16) -> Peek {
        let _ = (address, synthetic, port);
        todo!()
    }

    /// Allowed datagram destinations.
    pub fn udp_destinations(&self) -> &[UdpDestination] {
        todo!()
    }

    /// What a rule is called and where it stands. Panics if the id is of another set.
    pub fn rule(&self, rule: RuleId) -> &RuleFacts {
        let _ = rule;
        todo!()
    }
}
