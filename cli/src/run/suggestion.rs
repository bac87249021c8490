//! Access records turned into rules: which of them a rule answers, and what it would have to name.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use sidegate_api::{AccessRecord, CloseReason};
use sidegate_policy::{
    Arrival, Date, Direction, HostEvidence, HostName, Observed, Proposal, Proposals, Reason, Request,
    Treatment,
    decision::{Dial, TlsMode},
    demands,
    deny_table::denied_answer,
};
use sidegate_proxy::{connection::decide::carried_out, dns::SyntheticAddresses};

use super::{summary::Group, wording};

/// What the proxy knows beside the records.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    /// The names whose answers lately led the command to an address, the latest last.
    pub(super) recall: &'a dyn Fn(IpAddr) -> Vec<HostName>,
    /// Policy and rule that allow TLS 1.3 to a name at a port.
    pub(super) rule_for: &'a dyn Fn(&HostName, u16) -> Option<NamedRule>,
}

/// Rules that are offered to add to a policy; who needs more starts from audit mode.
const MOST_RULES: usize = 40;
/// The port of a rule for a name that was only asked for.
const GUESSED_PORT: u16 = 443;

/// Rules that would allow what was refused, and what to know of them.
pub(super) struct Offer {
    notes: BTreeSet<String>,
    proposals: Proposals,
    /// Hosts and addresses that a rule lacks something for.
    edits: BTreeMap<(Lack, NamedRule), BTreeSet<String>>,
}

/// Policy and rule.
pub(super) type NamedRule = (String, String);

/// What a rule that exists lacks: a second one beside it would disagree with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lack {
    Private,
    Tls12,
}

impl Offer {
    /// Ready to stand under `spec.egress`; `None` when no rule is to be added.
    pub(super) fn rules(&self) -> Option<String> {
        (!self.proposals.is_empty()).then(|| self.noted(4, self.proposals.egress(4)))
    }

    /// Changes of rules that exist.
    pub(super) fn edits(&self) -> String {
        let edit = |((lack, (policy, rule)), hosts): (&(Lack, NamedRule), &BTreeSet<String>)| {
            let hosts = hosts.iter().map(|host| wording::plain(host)).collect::<Vec<_>>().join(", ");
            let place = format!("edit rule `{rule}` of policy `{policy}` where it allows {hosts}");
            match lack {
                Lack::Private => format!(
                    "\n  if a private address is intended, {place}:\n\n      \
                     to: [ {{ hosts: [ {hosts} ], private: true }} ]\n"
                ),
                Lack::Tls12 => format!(
                    "\n  if TLS 1.2 must do, {place}\n  (other hosts of that rule are better off in one of their own):\n\n      \
                     tls: {{ mode: passthrough, min: \"1.2\" }}\n      reason: \"say why this needs no TLS 1.3\"\n"
                ),
            }
        };
        self.edits.iter().map(edit).collect()
    }

    /// A policy of their own.
    pub(super) fn policy(&self, command: &str) -> String {
        self.noted(0, self.proposals.document(command, ""))
    }

    fn noted(&self, indent: usize, text: String) -> String {
        let notes = self.notes.iter().map(|note| format!("{:indent$}# {note}\n", ""));
        notes.chain([text]).collect()
    }
}

/// What to offer; `None` when nothing would help.
pub(super) fn offer<'a>(refused: impl Iterator<Item = &'a Group>, known: Known<'_>) -> Option<Offer> {
    let refused: Vec<&Group> = refused
        .filter(|group| Reason::from_word(&group.first.reason).is_some_and(answered_by_a_policy))
        .collect();
    let mut offer = Offer { notes: BTreeSet::new(), proposals: Proposals::default(), edits: BTreeMap::new() };
    let mut connected = BTreeSet::new();
    for group in refused.iter().filter(|group| group.first.dns.is_none()) {
        connected.extend(group.first.host.as_deref());
        match lacking(&group.first) {
            Some(lack) => offer.edit(lack, &group.first, known),
            None => offer.add(sighting(group, known)),
        }
    }
    for record in refused.iter().map(|group| &group.first).filter(|record| record.dns.is_some()) {
        if let Some(lack) = lacking(record) {
            offer.edit(lack, record, known);
        } else if !record.host.as_deref().is_some_and(|host| connected.contains(host)) {
            offer.add(asked(record));
            offer.notes.insert(format!("port {GUESSED_PORT} is a guess where a name was only asked for"));
        }
    }
    if offer.proposals.len() == MOST_RULES {
        offer.notes.insert("there are more; `--mode audit` prints a whole policy".to_owned());
    }
    (!offer.proposals.is_empty() || !offer.edits.is_empty()).then_some(offer)
}

impl Offer {
    fn add(&mut self, sighting: Option<Sighting>) {
        if self.proposals.len() < MOST_RULES {
            self.notes.extend(sighting.as_ref().and_then(Sighting::note));
            add(&mut self.proposals, sighting);
        }
    }

    fn edit(&mut self, lack: Lack, record: &AccessRecord, known: Known<'_>) {
        let host = record.host.as_deref();
        // The application chose an address that no answer of the resolver named: it must not choose what is offered.
        let chosen =
            record.dns.is_none() && is_private(record) && !host.is_some_and(|host| led(record, host, known));
        if lack == Lack::Private && chosen {
            return;
        }
        let wanted = || (known.rule_for)(&HostName::parse(host?).ok()?, record.original_dst?.port());
        let rule = record.policy.clone().zip(record.rule.clone()).or_else(wanted);
        let address = || record.original_dst.map(|original| original.ip().to_string());
        if let Some((rule, end)) = rule.zip(host.map(str::to_owned).or_else(address)) {
            self.edits.entry((lack, rule)).or_default().insert(end);
        }
    }
}

/// The smallest policy under which all that passed would pass again; `None` when nothing did.
pub(super) fn document<'a>(
    groups: impl Iterator<Item = &'a Group>,
    command: &str,
    known: Known<'_>,
) -> Option<String> {
    let mut proposals = Proposals::default();
    let (mut connected, mut questions) = (BTreeSet::new(), BTreeSet::new());
    let mut notes = BTreeSet::new();
    for group in groups.filter(|group| group.first.verdict != "denied") {
        let record = &group.first;
        if record.dns.is_some() {
            questions.extend(record.host.as_deref());
        } else if reached(group)
            && let Some(sighting) = sighting(group, known)
        {
            connected.extend(sighting.host.as_ref().map(|host| host.as_str().to_owned()));
            connected.extend(sighting.passed_over.clone());
            notes.extend(sighting.note());
            add(&mut proposals, Some(sighting));
        }
    }
    let asked_only: Vec<String> =
        questions.into_iter().filter(|host| !connected.contains(*host)).map(wording::plain).collect();
    if proposals.is_empty() && asked_only.is_empty() {
        return None;
    }
    let mut text = proposals.document(command, "what it reached in audit mode");
    for name in asked_only {
        text.push_str(&format!("# asked for, but never connected to: {name}\n"));
    }
    notes.iter().for_each(|note| text.push_str(&format!("# {note}\n")));
    Some(text)
}

/// Whether a connection was meant: one that was opened and given up without a byte needs no rule.
fn reached(group: &Group) -> bool {
    group.first.host.is_some() || group.spoke || group.first.close_reason == CloseReason::ConnectFailed
}

/// Reasons that the policy answers; the others need another client, server or resolver.
fn answered_by_a_policy(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::NoRule
            | Reason::NoPolicy
            | Reason::NameNotAllowed
            | Reason::HostMissing
            | Reason::ProtocolMismatch
            | Reason::AddressPrivate
            | Reason::TlsVersionClient
            | Reason::TlsVersionServer
    )
}

/// What the rule that was concerned lacks; `None`: there was none.
fn lacking(record: &AccessRecord) -> Option<Lack> {
    match Reason::from_word(&record.reason)? {
        Reason::TlsVersionClient | Reason::TlsVersionServer => Some(Lack::Tls12),
        Reason::AddressPrivate => record.rule.as_ref().and(record.host.as_ref()).map(|_| Lack::Private),
        _ => None,
    }
}

/// What a rule must allow.
struct Sighting {
    host: Option<HostName>,
    /// The name is the latest whose answer led to the address, not one that the connection showed.
    guessed: bool,
    /// A name that was shown but did not lead the command there.
    passed_over: Option<String>,
    address: Option<IpAddr>,
    port: u16,
    observed: Observed,
}

impl Sighting {
    fn of(port: u16, observed: Observed) -> Sighting {
        Sighting { host: None, guessed: false, passed_over: None, address: None, port, observed }
    }

    /// What to know of the rule before it is used.
    fn note(&self) -> Option<String> {
        let address = self.address?;
        match (&self.passed_over, &self.host) {
            (Some(shown), _) => Some(format!(
                "{address} is the command's own choice: no answer for {} led there",
                wording::plain(shown)
            )),
            (None, Some(host)) if self.guessed => Some(format!(
                "{address}:{} showed no name; {host} is a guess, for its answer led there",
                self.port
            )),
            _ => None,
        }
    }
}

fn sighting(group: &Group, known: Known<'_>) -> Option<Sighting> {
    let record = &group.first;
    let original = record.original_dst?;
    // Where the name was resolved and dialled, that counts, not the address that the client chose.
    let reached = record.upstream.unwrap_or(original).ip();
    let observed = match record.protocol.as_str() {
        "tls" => Observed::Tls { offers_tls13: !group.tls12, ech: record.reason == Reason::TlsEch.word() },
        "http" if requests_are_judged() => Observed::Http,
        "http" | "tcp" => Observed::Opaque,
        _ => return None,
    };
    let named = record.host.as_deref().and_then(|host| HostName::parse(host).ok());
    if record.host.is_some() && named.is_none() {
        return None;
    }
    let sighting = Sighting {
        address: Some(reached).filter(|address| !SyntheticAddresses::is_synthetic(*address)),
        ..Sighting::of(original.port(), observed)
    };
    Some(match named {
        // Bytes that are not looked at follow a name to where its answer leads. TLS shows its name wherever it goes, but
        // the name opens no private address that it did not lead to.
        Some(host)
            if !led(record, host.as_str(), known) && (observed == Observed::Opaque || is_private(record)) =>
        {
            Sighting { passed_over: Some(host.to_string()), ..sighting }
        }
        Some(host) => Sighting { host: Some(host), ..sighting },
        // A request that names no host was sent to the address.
        None if record.protocol == "tcp" => {
            let host = (known.recall)(original.ip()).pop();
            Sighting { guessed: host.is_some(), host, ..sighting }
        }
        None => sighting,
    })
}

/// Whether our resolver's answer for the name led the connection where it went.
fn led(record: &AccessRecord, host: &str, known: Known<'_>) -> bool {
    let Some(original) = record.original_dst else { return false };
    SyntheticAddresses::is_synthetic(original.ip())
        || record.upstream.is_some_and(|upstream| upstream != original)
        || (known.recall)(original.ip()).iter().any(|name| name.as_str() == host)
}

/// The client's own choice of address is one that `private: true` opens.
fn is_private(record: &AccessRecord) -> bool {
    let original = record.original_dst.and_then(|original| denied_answer(original.ip(), false));
    original == Some(Reason::AddressPrivate)
}

/// A name that was asked for: most likely for HTTPS.
fn asked(record: &AccessRecord) -> Option<Sighting> {
    let host = HostName::parse(record.host.as_deref()?).ok()?;
    let observed = Observed::Tls { offers_tls13: true, ech: false };
    Some(Sighting { host: Some(host), ..Sighting::of(GUESSED_PORT, observed) })
}

/// Whether this build carries out a rule with `protocol: http`; otherwise one with `tcp` is what works.
fn requests_are_judged() -> bool {
    let plain =
        Treatment { dial: Dial::Name, tls: TlsMode::None, private: false, per_request: true, demands: false };
    carried_out(plain, &demands::NONE)
}

fn add(proposals: &mut Proposals, sighting: Option<Sighting>) {
    let Some(Sighting { host, guessed, address, port, observed, .. }) = sighting else { return };
    let evidence = match observed {
        Observed::Tls { .. } => HostEvidence::Sni,
        Observed::Http => HostEvidence::HttpAuthority,
        Observed::Opaque | Observed::Udp => HostEvidence::Synthetic,
    };
    let request = Request {
        direction: Direction::Egress,
        host: host.as_ref().map(|host| (evidence, host)),
        address,
        port,
        observed,
        peer: None,
        arrival: Arrival::Plain,
        http: None,
        today: Date::from_days(0),
    };
    // What no rule can open is told by its reason.
    if let Ok(proposal) = Proposal::of(&request) {
        proposals.add(if guessed { proposal.guessed() } else { proposal });
    }
}
