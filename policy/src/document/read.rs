//! A source's documents: the envelope, metadata and spec.

use crate::{Date, Diagnostic, Source, SpiffePattern};

use super::{
    Destination, Document, Origin, Rule, Spanned,
    fields::{Fields, list, texts},
    findings::Findings,
    rule::{self, RuleEnd},
    scalar::{self, shown},
    tree::{self, Node, Value},
};

const API_VERSION: &str = "sidegate.dev/v1";
const KIND: &str = "Policy";

pub(super) fn documents(source: &Source) -> Result<Vec<Document>, Vec<Diagnostic>> {
    let mut findings = Findings::new(source);
    let documents: Vec<Document> = match tree::read(&source.text, &mut findings) {
        Some(roots) if roots.is_empty() => {
            let fix = "start with `apiVersion: sidegate.dev/v1` and `kind: Policy`";
            findings.add("no-document", &(0..0), "the file holds no policy", fix);
            Vec::new()
        }
        Some(roots) => roots.iter().filter_map(|root| document(root, &mut findings)).collect(),
        None => Vec::new(),
    };
    if findings.is_empty() { Ok(documents) } else { Err(findings.finish()) }
}

/// `None` when something was reported that leaves no whole document.
fn document(root: &Node<'_>, findings: &mut Findings<'_>) -> Option<Document> {
    if let Value::Scalar(text, true) = &root.value
        && text.is_empty()
    {
        findings.add(
            "empty-document",
            &root.span,
            "this document is empty",
            "remove the `---` that starts it",
        );
        return None;
    }
    let fields = Fields::open(root, "the policy", &["apiVersion", "kind", "metadata", "spec"], findings)?;
    if !is_ours(&fields, findings) {
        return None;
    }
    let metadata = fields
        .required("metadata", "the policy", "add `metadata: { name: my-policy }`", findings)
        .and_then(|node| Metadata::read(node, findings));
    let spec = fields
        .required("spec", "the policy", "add `spec:` with `egress` or `ingress`", findings)
        .and_then(|node| Spec::read(node, findings));
    let (metadata, spec) = (metadata?, spec?);
    Some(Document {
        source: findings.source.clone(),
        name: metadata.name?,
        owner: metadata.owner,
        description: metadata.description,
        applies_to: spec.applies_to,
        audit_until: spec.audit_until,
        egress: spec.egress,
        ingress: spec.ingress,
    })
}

/// Whether version and kind are known, so that the rest can be judged at all.
fn is_ours(fields: &Fields<'_, '_>, findings: &mut Findings<'_>) -> bool {
    let mut expect = |field: &'static str, code: &'static str, expected: &str| {
        let fix = format!("write `{field}: {expected}`");
        let Some(node) = fields.required(field, "the policy", &fix, findings) else { return true };
        match scalar::text(node, field, findings) {
            Some(text) if text != expected => {
                let message = format!("`{}` is no `{field}` that this version reads", shown(text));
                findings.add(code, &node.span, message, fix);
                false
            }
            _ => true,
        }
    };
    let version = expect("apiVersion", "api-version", API_VERSION);
    expect("kind", "kind", KIND) && version
}

struct Metadata {
    name: Option<Spanned<String>>,
    owner: Option<String>,
    description: Option<String>,
}

impl Metadata {
    fn read(node: &Node<'_>, findings: &mut Findings<'_>) -> Option<Metadata> {
        let fields = Fields::open(node, "`metadata`", &["name", "owner", "description"], findings)?;
        let name = fields
            .required("name", "`metadata`", "add a name of a-z, 0-9 and `-`", findings)
            .and_then(|node| scalar::name(node, findings))
            .map(|(value, span)| Spanned { value, span });
        let mut prose =
            |field, limit| fields.value(field).and_then(|node| scalar::prose(node, field, limit, findings));
        Some(Metadata { name, owner: prose("owner", 256), description: prose("description", 4096) })
    }
}

struct Spec {
    applies_to: Option<Vec<SpiffePattern>>,
    audit_until: Option<Date>,
    egress: Vec<Rule<Destination>>,
    ingress: Vec<Rule<Origin>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Enforce,
    Audit,
}

impl Spec {
    fn read(node: &Node<'_>, findings: &mut Findings<'_>) -> Option<Spec> {
        let known = ["appliesTo", "mode", "auditUntil", "egress", "ingress"];
        let fields = Fields::open(node, "`spec`", &known, findings)?;
        Some(Spec {
            applies_to: fields
                .value("appliesTo")
                .map(|node| texts(node, "appliesTo", findings, super::ends::spiffe)),
            audit_until: audit(&fields, findings),
            egress: rules(&fields, "egress", findings),
            ingress: rules(&fields, "ingress", findings),
        })
    }
}

/// `mode` and `auditUntil`: audit always ends.
fn audit(fields: &Fields<'_, '_>, findings: &mut Findings<'_>) -> Option<Date> {
    let words = [("enforce", Mode::Enforce), ("audit", Mode::Audit)];
    let mode = fields.value("mode").map(|node| scalar::word(node, "mode", &words, findings));
    let until = fields.value("auditUntil").and_then(|node| scalar::date(node, "auditUntil", findings));
    match mode {
        Some(Some(Mode::Audit)) => {
            let fix =
                "add the last day, such as `auditUntil: 2030-12-31`; after that day the policy is enforced";
            if fields.entry("auditUntil").is_none()
                && let Some(entry) = fields.entry("mode")
            {
                findings.add("audit-without-end", &entry.key_span, "`mode: audit` needs `auditUntil`", fix);
            }
            until
        }
        Some(None) => None,
        Some(Some(Mode::Enforce)) | None => {
            let message = "`auditUntil` has no meaning without `mode: audit`";
            let fix = "add `mode: audit`, or remove it";
            findings.refuse(fields.entry("auditUntil"), "audit-until-enforced", message, fix);
            None
        }
    }
}

fn rules<T: RuleEnd>(fields: &Fields<'_, '_>, direction: &str, findings: &mut Findings<'_>) -> Vec<Rule<T>> {
    let Some(node) = fields.value(direction) else { return Vec::new() };
    let rules: Vec<Rule<T>> = list(node, direction, findings)
        .iter()
        .filter_map(|item| rule::read(item, direction, findings))
        .collect();
    let mut seen = std::collections::HashMap::with_capacity(rules.len());
    for rule in &rules {
        if let Some(first) = seen.insert(rule.name.value.as_str(), &rule.name.span) {
            let message = format!("two {direction} rules are named `{}`", rule.name.value);
            findings.add("duplicate-rule", &rule.name.span, message, "give each rule its own name");
            findings.relate(first, "first named here");
        }
    }
    rules
}
