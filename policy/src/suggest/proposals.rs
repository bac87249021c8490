//! Many proposals as one list or one document, fit to be loaded together.

use std::collections::{BTreeMap, BTreeSet};

use crate::document::quoted;

use super::{Carried, Key, LONGEST_NAME, Proposal, simple};

/// Proposals, merged: one rule for the ports of a destination that ask for the same, and no two that would be refused as
/// a disagreement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proposals {
    /// Each with the one port of its key; grants have none.
    by_key: BTreeMap<(Key, Option<u16>), Proposal>,
}

impl Proposals {
    /// Adds one. Of two for the same destination, protocol and port, the weaker demands stay: both were asked for.
    pub fn add(&mut self, proposal: Proposal) {
        let mut ports: Vec<Option<u16>> = proposal.ports.iter().copied().map(Some).collect();
        if ports.is_empty() {
            ports.push(None);
        }
        for port in ports {
            let one = Proposal { ports: port.into_iter().collect(), ..proposal.clone() };
            self.add_one((one.key.clone(), port), one);
        }
    }

    fn add_one(&mut self, key: (Key, Option<u16>), mut proposal: Proposal) {
        if let Some(known) = self.by_key.get_mut(&key) {
            known.http.append(&mut proposal.http);
            known.private |= proposal.private;
            known.min_tls12 |= proposal.min_tls12;
            known.ech |= proposal.ech;
        } else {
            self.by_key.insert(key, proposal);
        }
    }

    /// Number of rules, at most.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Nothing was added.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// List items for `spec.egress`, each line after `indent` spaces.
    pub fn egress(&self, indent: usize) -> String {
        self.list(true, indent)
    }

    /// A whole policy that allows exactly these. `name` may be any text; `description` is plain text of at most 4096
    /// bytes, left out when empty.
    pub fn document(&self, name: &str, description: &str) -> String {
        let name = simple(name, LONGEST_NAME).unwrap_or_else(|| "policy".to_owned());
        let mut text =
            format!("apiVersion: sidegate.dev/v1\nkind: Policy\nmetadata:\n  name: {}\n", quoted(&name));
        if !description.is_empty() {
            text.push_str(&format!("  description: {}\n", quoted(description)));
        }
        text.push_str(if self.is_empty() { "spec: {}\n" } else { "spec:\n" });
        for (field, egress) in [("egress", true), ("ingress", false)] {
            let rules = self.list(egress, 4);
            if !rules.is_empty() {
                text.push_str(&format!("  {field}:\n{rules}"));
            }
        }
        text
    }

    fn list(&self, egress: bool, indent: usize) -> String {
        let mut names = BTreeSet::new();
        let mut text = String::new();
        for proposal in self.settled().into_iter().filter(|proposal| proposal.key.egress == egress) {
            let name = unique(proposal.name(), &mut names);
            for line in proposal.yaml(&name).lines() {
                text.push_str(&format!("{:indent$}{line}\n", ""));
            }
        }
        text
    }

    /// Rules of `tcp` take in every protocol, so that beside another one for the same port they would disagree. The
    /// one that was recognised stays: what says nothing is often a client that gave up a second connection. So does the
    /// one whose name was shown, beside one for the same name that was guessed.
    fn settled(&self) -> Vec<Proposal> {
        let better = |key: &Key, port| {
            let beside = |protocol, guessed| Key { protocol, guessed, ..key.clone() };
            let keys =
                [beside(Carried::Tls, false), beside(Carried::Http, false), beside(Carried::Tcp, false)];
            keys.into_iter().any(|other| other != *key && self.by_key.contains_key(&(other, port)))
        };
        let mut rules: Vec<Proposal> = Vec::new();
        for ((key, port), proposal) in &self.by_key {
            if key.protocol == Carried::Tcp && better(key, *port) {
                continue;
            }
            match rules.iter_mut().find(|rule| rule.asks_as(proposal)) {
                Some(rule) => rule.ports.extend(&proposal.ports),
                None => rules.push(proposal.clone()),
            }
        }
        rules
    }
}

impl Proposal {
    /// Whether both ask for the same, but for ports.
    fn asks_as(&self, other: &Proposal) -> bool {
        Proposal { ports: other.ports.clone(), ..self.clone() } == *other
    }
}

/// Names are unique within a list.
fn unique(name: String, taken: &mut BTreeSet<String>) -> String {
    let mut candidate = name.clone();
    let mut number = 2;
    while !taken.insert(candidate.clone()) {
        let suffix = format!("-{number}");
        let kept: String = name.chars().take(LONGEST_NAME - suffix.len()).collect();
        candidate = format!("{kept}{suffix}");
        number += 1;
    }
    candidate
}
