//! Many proposals as one list or one document, fit to be loaded together.

use std::collections::{BTreeMap, BTreeSet};

use crate::document::quoted;

use super::{Carried, End, Key, LONGEST_NAME, Proposal, simple};

/// Proposals, merged: one rule for each destination and protocol, and no two that would be refused as a disagreement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proposals {
    by_key: BTreeMap<Key, Proposal>,
}

impl Proposals {
    /// Adds one. Of two for the same destination and protocol, the weaker demands stay: both were asked for.
    pub fn add(&mut self, mut proposal: Proposal) {
        if let Some(known) = self.by_key.get_mut(&proposal.key) {
            known.ports.append(&mut proposal.ports);
            known.http.append(&mut proposal.http);
            known.private |= proposal.private;
            known.min_tls12 |= proposal.min_tls12;
            known.ech |= proposal.ech;
        } else {
            self.by_key.insert(proposal.key.clone(), proposal);
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
        for proposal in self.settled().filter(|proposal| proposal.key.egress == egress) {
            let name = unique(proposal.name(), &mut names);
            for line in proposal.yaml(&name).lines() {
                text.push_str(&format!("{:indent$}{line}\n", ""));
            }
        }
        text
    }

    /// Rules of `tcp` take in every protocol, so that beside another one for the same port they would disagree. The
    /// one that was recognised stays: what says nothing is often a client that gave up a second connection.
    fn settled(&self) -> impl Iterator<Item = Proposal> {
        let mut recognised: BTreeMap<(bool, &End), BTreeSet<u16>> = BTreeMap::new();
        for key in self.by_key.keys().filter(|key| matches!(key.protocol, Carried::Tls | Carried::Http)) {
            let ports = self.by_key.get(key).map(|proposal| proposal.ports.clone()).unwrap_or_default();
            recognised.entry((key.egress, &key.end)).or_default().extend(ports);
        }
        self.by_key.values().cloned().filter_map(move |mut proposal| {
            let end = proposal.key.end.clone();
            if let (Carried::Tcp, Some(ports)) =
                (proposal.key.protocol, recognised.get(&(proposal.key.egress, &end)))
            {
                proposal.ports.retain(|port| !ports.contains(port));
                return (!proposal.ports.is_empty()).then_some(proposal);
            }
            Some(proposal)
        })
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
