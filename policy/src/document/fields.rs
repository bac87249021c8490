//! Mappings with known fields, and lists.

use std::ops::Range;

use super::{
    findings::Findings,
    scalar::{self, nearest, shown, wrong_type},
    tree::{Entry, Node, Value},
};

/// A mapping whose unknown fields were reported.
pub(super) struct Fields<'n, 's> {
    entries: &'n [Entry<'s>],
    /// Where a missing field is missed: the start of the mapping.
    place: Range<usize>,
    /// What unknown fields were probably meant to be; not reported as missing as well.
    meant: Vec<&'static str>,
    has_unknown: bool,
}

impl<'n, 's> Fields<'n, 's> {
    /// `what`: for messages, such as "`spec`" or "an egress rule".
    pub(super) fn open(
        node: &'n Node<'s>,
        what: &str,
        known: &[&'static str],
        findings: &mut Findings<'_>,
    ) -> Option<Self> {
        let Value::Mapping(entries) = &node.value else {
            wrong_type(node, what, "a mapping", findings);
            return None;
        };
        let unknown =
            |entry: &&Entry<'_>| !known.contains(&&*entry.key) && entry.key != "<<" && !entry.key.is_empty();
        let mut meant = Vec::new();
        let mut has_unknown = false;
        for entry in entries.iter().filter(unknown) {
            has_unknown = true;
            let near = if findings.is_full() { None } else { nearest(&entry.key, known) };
            let (near, fix) = match (near, elsewhere(&entry.key, known)) {
                (_, Some((field, fix))) => (Some(field), fix.to_owned()),
                (Some(near), None) => (Some(near), format!("did you mean `{near}`?")),
                (None, None) => (None, format!("known fields are: {}", known.join(", "))),
            };
            meant.extend(near);
            let message = format!("{what} has no field `{}`", shown(&entry.key));
            findings.add("unknown-field", &entry.key_span, message, fix);
        }
        let end = entries.first().map_or(node.span.end, |entry| entry.key_span.end);
        Some(Fields { entries, place: node.span.start..end.max(node.span.start), meant, has_unknown })
    }

    pub(super) fn entry(&self, name: &str) -> Option<&'n Entry<'s>> {
        self.entries.iter().find(|entry| entry.key == name)
    }

    pub(super) fn value(&self, name: &str) -> Option<&'n Node<'s>> {
        self.entry(name).map(|entry| &entry.value)
    }

    pub(super) fn required(
        &self,
        name: &str,
        what: &str,
        fix: &str,
        findings: &mut Findings<'_>,
    ) -> Option<&'n Node<'s>> {
        if self.entry(name).is_none() && !self.meant.contains(&name) {
            findings.add("missing-field", &self.place, format!("{what} lacks `{name}`"), fix);
        }
        self.value(name)
    }

    pub(super) fn has_unknown(&self) -> bool {
        self.has_unknown
    }

    pub(super) fn place(&self) -> &Range<usize> {
        &self.place
    }
}

/// What people write for a field of another name or place: that field, and what to write.
fn elsewhere(key: &str, known: &[&'static str]) -> Option<(&'static str, &'static str)> {
    const WORDS: [(&[&str], &str, &str); 8] = [
        (
            &["audit", "dryRun", "dryrun"],
            "mode",
            "write `mode: audit` and its last day, `auditUntil: 2030-12-31`: audit always ends",
        ),
        (
            &["audit", "dryRun", "dryrun", "mode"],
            "auditUntil",
            "write the last day of the audit, `auditUntil: 2030-12-31`: audit always ends",
        ),
        (&["policy"], "policies", "did you mean `policies`? It is a list: `policies: [ FILE ]`"),
        (&["domain", "domains", "fqdn", "fqdns", "dns", "names"], "hosts", "did you mean `hosts`?"),
        (
            &["ip", "ips", "address", "addresses", "ipBlock"],
            "cidrs",
            "did you mean `cidrs`? An address is written with its prefix length",
        ),
        (&["egress", "ingress", "appliesTo", "mode", "auditUntil"], "spec", "put it under `spec`"),
        (&["name", "owner", "description"], "metadata", "put it under `metadata`"),
        (
            &["hosts", "cidrs", "workloads", "grants", "private"],
            "to",
            "put it into an entry of `to`, such as `to: [ { hosts: [ api.example.com ] } ]`",
        ),
    ];
    let meant = |(keys, field, fix): &(&[&str], &str, &'static str)| {
        let field = known.iter().find(|known| *known == field).filter(|_| keys.contains(&key))?;
        Some((*field, *fix))
    };
    WORDS.iter().find_map(meant)
}

/// The items of a list that must not be empty.
pub(super) fn list<'n, 's>(node: &'n Node<'s>, field: &str, findings: &mut Findings<'_>) -> &'n [Node<'s>] {
    match &node.value {
        Value::Sequence(items) if items.is_empty() => {
            let message = format!("`{field}` is an empty list");
            findings.add("empty-list", &node.span, message, "add an entry, or remove the field");
            &[]
        }
        Value::Sequence(items) => items,
        _ => {
            match &node.value {
                Value::Mapping(entries) if !entries.is_empty() => {
                    let message = format!("`{field}` must be a list, found a mapping");
                    let fix = "put `- ` before each entry, or write `[ { ... } ]`";
                    findings.add("wrong-type", &node.span, message, fix);
                }
                Value::Scalar(text, _) if !text.is_empty() => {
                    let message = format!("`{field}` must be a list, found {}", scalar::kind(node));
                    findings.add("wrong-type", &node.span, message, format!("write `[ {} ]`", shown(text)));
                }
                _ => wrong_type(node, &format!("`{field}`"), "a list", findings),
            }
            &[]
        }
    }
}

/// A list of texts, each parsed; what fails was reported.
pub(super) fn texts<T>(
    node: &Node<'_>,
    field: &str,
    findings: &mut Findings<'_>,
    mut parse: impl FnMut(&str, &Range<usize>, &mut Findings<'_>) -> Option<T>,
) -> Vec<T> {
    list(node, field, findings)
        .iter()
        .filter_map(|item| {
            let text = scalar::text(item, field, findings)?;
            parse(text, &item.span, findings)
        })
        .collect()
}
