//! One compiled rule, and whether a request that reached it by host, address or peer satisfies the rest of it.

use std::{ops::RangeInclusive, sync::Arc};

use crate::{
    Arrival, Date, Demands, Direction, HostEvidence, Observed, Reason, Request,
    decision::{Dial, Predicate, TlsMode, Treatment},
    deny_table::denied_answer,
    document::{Action, Destination, HttpMatch, Protocol, judges_requests},
    request::HttpFacts,
};

use super::RuleFacts;

/// A rule after compilation. Only what the verdict, its explanation and its comparison need.
#[derive(Debug)]
pub(crate) struct CompiledRule {
    pub(crate) facts: RuleFacts,
    pub(crate) direction: Direction,
    pub(crate) action: Action,
    pub(crate) ends: Vec<Destination>,
    /// Ascending, disjoint, not adjacent. Empty: a rule of grants that names none.
    pub(crate) ports: Box<[RangeInclusive<u16>]>,
    pub(crate) protocol: Protocol,
    pub(crate) tls: TlsMode,
    /// `None`: there are none.
    pub(crate) demands: Option<Arc<Demands>>,
    pub(crate) http: Box<[HttpMatch]>,
    /// Denials by this rule are recorded, not enforced, through that day: its own `auditUntil`, and for a deny rule
    /// also its policy's.
    pub(crate) audit_until: Option<Date>,
}

/// By which of its ends a rule was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum End {
    /// Source or destination address: a prefix or a group.
    Address,
    /// Proven identity.
    Workload,
    /// Host name.
    Host,
}

/// How far a request came in a rule before it failed; later variants came farther.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Except,
    Port,
    Protocol,
    /// The host matched, but the original destination is none that a name may lead to.
    Address,
    Tls,
    Http,
}

impl Stage {
    pub(crate) fn predicate(self) -> Predicate {
        match self {
            Stage::Address => Predicate::Destination,
            Stage::Except => Predicate::Except,
            Stage::Port => Predicate::Port,
            Stage::Protocol => Predicate::Protocol,
            Stage::Tls => Predicate::Tls,
            Stage::Http => Predicate::Http,
        }
    }
}

/// Why a rule that was reached does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Miss {
    pub(crate) stage: Stage,
    pub(crate) reason: Reason,
}

/// Whether a deny rule that was reached matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DenyMatch {
    No,
    Yes,
    /// Its `http` entries can be judged only once a request is seen.
    WithinRequests,
}

impl CompiledRule {
    /// The predicates of an allow rule after end, `except` and port.
    pub(crate) fn check_allow(&self, end: End, private: bool, request: &Request<'_>) -> Result<(), Miss> {
        self.check_protocol(end, request).map_err(|reason| Miss { stage: Stage::Protocol, reason })?;
        if end == End::Host
            && let Some(reason) = request.address.and_then(|address| denied_answer(address, private))
        {
            return Err(Miss { stage: Stage::Address, reason });
        }
        self.check_tls(end, request).map_err(|reason| Miss { stage: Stage::Tls, reason })?;
        match request.http {
            Some(facts) => self.check_http(facts).map_err(|reason| Miss { stage: Stage::Http, reason }),
            None => Ok(()),
        }
    }

    /// A rule's protocol against what was observed; by host, also against how the host was learnt.
    ///
    /// A name that the proxy vouches for (synthetic address, explicit target) serves `tls` and `http` rules only
    /// together with the same name in SNI or authority; the caller has compared them.
    fn check_protocol(&self, end: End, request: &Request<'_>) -> Result<(), Reason> {
        let evidence = request.host.map(|(evidence, _)| evidence);
        match (self.protocol, request.observed) {
            (Protocol::Tls, Observed::Tls { .. })
            | (Protocol::Http, Observed::Http)
            | (Protocol::Udp, Observed::Udp) => Ok(()),
            (Protocol::Tcp, Observed::Tls { .. } | Observed::Http | Observed::Opaque) => {
                match (end, evidence) {
                    (End::Host, Some(HostEvidence::Sni | HostEvidence::HttpAuthority)) => {
                        Err(Reason::ProtocolMismatch)
                    }
                    _ => Ok(()),
                }
            }
            (Protocol::Tls, Observed::Http | Observed::Opaque) => Err(Reason::TlsRequired),
            _ => Err(Reason::ProtocolMismatch),
        }
    }

    fn check_tls(&self, end: End, request: &Request<'_>) -> Result<(), Reason> {
        let (reads_hello, needs_tls13) = match self.tls {
            TlsMode::Passthrough { min_tls12 } => (true, !min_tls12),
            TlsMode::Inspect => (true, true),
            TlsMode::Mesh if request.direction == Direction::Ingress => {
                let proven = request.arrival == Arrival::Mesh && request.peer.is_some();
                return if proven { Ok(()) } else { Err(Reason::MeshRequired) };
            }
            TlsMode::Terminate
                if request.direction == Direction::Ingress && request.arrival == Arrival::Plain =>
            {
                return Err(Reason::TlsRequired);
            }
            TlsMode::Originate | TlsMode::Mesh | TlsMode::Terminate | TlsMode::None => (false, false),
        };
        match request.observed {
            Observed::Tls { ech: true, .. } if end == End::Host && self.protocol == Protocol::Tls => {
                Err(Reason::TlsEch)
            }
            Observed::Tls { offers_tls13: false, .. } if needs_tls13 => Err(Reason::TlsVersionClient),
            Observed::Http | Observed::Opaque if reads_hello => Err(Reason::TlsRequired),
            _ => Ok(()),
        }
    }

    /// An allow rule lets a request change the protocol only where an entry says so. A rule that does not look at
    /// requests carries whatever they become.
    fn check_http(&self, facts: HttpFacts<'_>) -> Result<(), Reason> {
        let upgrades = |entry: &HttpMatch| match facts.upgrade {
            Some(_) => entry.upgrade == facts.upgrade && facts.method == "GET",
            None => entry.upgrade.is_none(),
        };
        let lets = |entry: &HttpMatch| upgrades(entry) && covers(entry, facts);
        match facts.upgrade {
            _ if self.http.iter().any(lets) => Ok(()),
            Some(_) if self.is_for_requests() => Err(Reason::UpgradeNotAllowed),
            _ if self.http.is_empty() => Ok(()),
            _ => Err(Reason::HttpNotAllowed),
        }
    }

    /// A deny rule covers upgrades too, wherever it does not single them out: a field that was left out must not narrow a
    /// denial.
    fn http_denies(&self, facts: HttpFacts<'_>) -> bool {
        let single = |entry: &HttpMatch| entry.upgrade.is_none() || entry.upgrade == facts.upgrade;
        self.http.is_empty() || self.http.iter().any(|entry| single(entry) && covers(entry, facts))
    }

    /// A deny rule after end, `except` and port. It counts for every way a host was learnt.
    pub(crate) fn check_deny(&self, request: &Request<'_>) -> DenyMatch {
        if !deny_covers(self.protocol, request) {
            return DenyMatch::No;
        }
        match request.http {
            _ if self.http.is_empty() => DenyMatch::Yes,
            Some(facts) if self.http_denies(facts) => DenyMatch::Yes,
            Some(_) => DenyMatch::No,
            None => DenyMatch::WithinRequests,
        }
    }

    pub(crate) fn treatment(&self, end: End, private: bool) -> Treatment {
        let dial = match end {
            End::Host => Dial::Name,
            End::Workload if self.tls == TlsMode::Mesh && self.direction == Direction::Egress => {
                Dial::Workload
            }
            End::Workload | End::Address => Dial::OriginalDestination,
        };
        let (per_request, demands) = (self.is_for_requests(), self.demands.is_some());
        Treatment { dial, tls: self.tls, private, per_request, demands }
    }

    /// Requests a second that it allows.
    pub(crate) fn rate(&self) -> u32 {
        let limit = self.demands.as_ref().and_then(|demands| demands.limit);
        limit.map_or(u32::MAX, |limit| limit.per_second)
    }

    /// Whether the rule's own audit holds on a day.
    pub(crate) fn in_audit(&self, today: Date) -> bool {
        self.audit_until.is_some_and(|last| today <= last)
    }

    /// Whether it holds for HTTP requests alone.
    pub(crate) fn is_for_requests(&self) -> bool {
        judges_requests(self.protocol, self.tls) || !self.http.is_empty()
    }

    /// Whether its verdict rests on the first bytes of a connection.
    pub(crate) fn looks_at_bytes(&self) -> bool {
        matches!(self.protocol, Protocol::Tls | Protocol::Http)
            || matches!(self.tls, TlsMode::Passthrough { .. } | TlsMode::Inspect)
    }
}

/// Whether both lists of an entry match.
fn covers(entry: &HttpMatch, facts: HttpFacts<'_>) -> bool {
    (entry.methods.is_empty() || entry.methods.iter().any(|method| method == facts.method))
        && (entry.paths.is_empty() || entry.paths.iter().any(|path| path.matches(facts.path)))
}

/// Protocols that a deny rule covers. `tls`, the default, covers every one: a forgotten `protocol` must not
/// narrow a denial.
fn deny_covers(protocol: Protocol, request: &Request<'_>) -> bool {
    match protocol {
        Protocol::Tls => true,
        Protocol::Http => request.observed == Observed::Http || request.http.is_some(),
        Protocol::Tcp => request.observed != Observed::Udp,
        Protocol::Udp => request.observed == Observed::Udp,
    }
}
