//! Access records turned into rules: which of them a rule answers, and what it would have to name.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use sidegate_api::{AccessRecord, CloseReason};
use sidegate_policy::{
    Date, Direction, HostEvidence, HostName, Observed, Proposal, Proposals, Reason, Request, Treatment,
    decision::{Dial, TlsMode},
};
use sidegate_proxy::{connection::decide::carried_out, dns::SyntheticAddresses};

use super::{summary::Group, wording};

/// The name that lately led the command to an address.
type Recall<'a> = &'a dyn Fn(IpAddr) -> Option<HostName>;

/// Rules that are offered to add to a policy; who needs more starts from audit mode.
const MOST_RULES: usize = 40;
/// The port of a rule for a name that was only asked for.
const GUESSED_PORT: u16 = 443;

/// Rules that would allow what was refused, and what to know of them.
pub(super) struct Offer {
    notes: BTreeSet<String>,
    proposals: Proposals,
    /// Hosts that lack a word, by policy and rule.
    edits: BTreeMap<(String, String), BTreeSet<String>>,
}

impl Offer {
    /// Ready to stand under `spec.egress`; `None` when no rule is to be added.
    pub(super) fn rules(&self) -> Option<String> {
        (!self.proposals.is_empty()).then(|| self.noted(4, self.proposals.egress(4)))
    }

    /// Changes of rules that exist: a second rule beside one would disagree with it.
    pub(super) fn edits(&self) -> String {
        let edit = |((policy, rule), hosts): (&(String, String), &BTreeSet<String>)| {
            let hosts = hosts.iter().map(|host| wording::plain(host)).collect::<Vec<_>>().join(", ");
            format!(
                "\n  if a private address is intended, edit rule `{rule}` of policy `{policy}` where it allows {hosts}:\n\n      \
                 to: [ {{ hosts: [ {hosts} ], private: true }} ]\n"
            )
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

/// What to offer; `None` when no rule would help.
pub(super) fn offer<'a>(refused: impl Iterator<Item = &'a Group>, recall: Recall<'_>) -> Option<Offer> {
    let refused: Vec<&Group> = refused
        .filter(|group| Reason::from_word(&group.first.reason).is_some_and(answered_by_a_rule))
        .collect();
    let mut proposals = Proposals::default();
    let mut connected = BTreeSet::new();
    let (mut notes, mut edits) = (BTreeSet::new(), BTreeMap::<_, BTreeSet<String>>::new());
    for group in refused.iter().filter(|group| group.first.dns.is_none()) {
        connected.extend(group.first.host.as_deref());
        match opened_by_a_word(&group.first) {
            Some((rule, host)) => drop(edits.entry(rule).or_default().insert(host)),
            None => add_some(&mut proposals, sighting(group, recall)),
        }
    }
    for record in refused.iter().map(|group| &group.first).filter(|record| record.dns.is_some()) {
        if let Some((rule, host)) = opened_by_a_word(record) {
            edits.entry(rule).or_default().insert(host);
        } else if !record.host.as_deref().is_some_and(|host| connected.contains(host)) {
            add_some(&mut proposals, asked(record));
            notes.insert(format!("port {GUESSED_PORT} is a guess where a name was only asked for"));
        }
    }
    if proposals.len() == MOST_RULES {
        notes.insert("there are more; `--mode audit` prints a whole policy".to_owned());
    }
    (!proposals.is_empty() || !edits.is_empty()).then_some(Offer { notes, proposals, edits })
}

/// The smallest policy under which all that passed would pass again; `None` when nothing did.
pub(super) fn document<'a>(
    groups: impl Iterator<Item = &'a Group>,
    command: &str,
    recall: Recall<'_>,
) -> Option<String> {
    let mut proposals = Proposals::default();
    let (mut connected, mut questions) = (BTreeSet::new(), BTreeSet::new());
    for group in groups.filter(|group| group.first.verdict != "denied") {
        let record = &group.first;
        if record.dns.is_some() {
            questions.extend(record.host.as_deref());
        } else if reached(group)
            && let Some(sighting) = sighting(group, recall)
        {
            connected.extend(sighting.host.as_ref().map(|host| host.as_str().to_owned()));
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
    Some(text)
}

/// Whether a connection came to anything: an address that was tried in vain needs no rule, nor does a connection that
/// was opened and given up without a byte.
fn reached(group: &Group) -> bool {
    let by_name = group.first.host.is_some();
    by_name || (group.spoke && group.first.close_reason != CloseReason::ConnectFailed)
}

/// Reasons that a rule answers; the others need another client, server or resolver.
fn answered_by_a_rule(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::NoRule
            | Reason::NoPolicy
            | Reason::NameNotAllowed
            | Reason::HostMissing
            | Reason::ProtocolMismatch
            | Reason::AddressPrivate
    )
}

/// Policy and rule that lack one word, `private: true`, and the host that they lack it for.
fn opened_by_a_word(record: &AccessRecord) -> Option<((String, String), String)> {
    let (rule, policy) = record.rule.as_ref().zip(record.policy.as_ref())?;
    let host = record.host.as_ref().filter(|_| record.reason == Reason::AddressPrivate.word())?;
    Some(((policy.clone(), rule.clone()), host.clone()))
}

/// What a rule must allow.
struct Sighting {
    host: Option<HostName>,
    address: Option<IpAddr>,
    port: u16,
    observed: Observed,
}

fn sighting(group: &Group, recall: Recall<'_>) -> Option<Sighting> {
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
    // A name can't carry TLS that does not name it.
    let recalled = || recall(original.ip()).filter(|_| observed == Observed::Opaque);
    Some(Sighting {
        host: named.or_else(recalled),
        address: Some(reached).filter(|address| !SyntheticAddresses::is_synthetic(*address)),
        port: original.port(),
        observed,
    })
}

/// A name that was asked for: most likely for HTTPS.
fn asked(record: &AccessRecord) -> Option<Sighting> {
    Some(Sighting {
        host: Some(HostName::parse(record.host.as_deref()?).ok()?),
        address: None,
        port: GUESSED_PORT,
        observed: Observed::Tls { offers_tls13: true, ech: false },
    })
}

/// Whether this build carries out a rule with `protocol: http`; otherwise one with `tcp` is what works.
fn requests_are_judged() -> bool {
    carried_out(Treatment { dial: Dial::Name, tls: TlsMode::None, private: false, per_request: true })
}

fn add_some(proposals: &mut Proposals, sighting: Option<Sighting>) {
    if proposals.len() < MOST_RULES {
        add(proposals, sighting);
    }
}

fn add(proposals: &mut Proposals, sighting: Option<Sighting>) {
    let Some(Sighting { host, address, port, observed }) = sighting else { return };
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
        http: None,
        today: Date::from_days(0),
    };
    // What no rule can open is told by its reason.
    if let Ok(proposal) = Proposal::of(&request) {
        proposals.add(proposal);
    }
}
