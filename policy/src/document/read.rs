//! A source's documents: the envelope, metadata and spec.

use crate::{CanonicalPath, Date, Diagnostic, PathPattern, Source, SpiffePattern};

use super::{
    Destination, Document, Origin, Probe, Rule, Spanned,
    fields::{Fields, list, texts},
    findings::Findings,
    rule::{self, Readout, RuleEnd},
    scalar::{self, shown},
    tree::{self, Node, Value},
};

const API_VERSION: &str = "sidegate.dev/v1";
const KIND: &str = "Policy";
/// The other kind that people write: the sidecar's configuration.
const PROXY_CONFIG: &str = "ProxyConfig";

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
    // A wrong version or kind was reported; what else is wrong is told all the same.
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
        probes: spec.probes,
        egress: spec.egress,
        ingress: spec.ingress,
    })
}

/// Reports a wrong version or kind. `false`: it is another kind of ours, of which nothing more can be said here.
fn is_ours(fields: &Fields<'_, '_>, findings: &mut Findings<'_>) -> bool {
    let expected = [("apiVersion", "api-version", API_VERSION), ("kind", "kind", KIND)];
    let mut ours = true;
    for (field, code, expected) in expected {
        let fix = format!("write `{field}: {expected}`");
        let Some(node) = fields.required(field, "the policy", &fix, findings) else { continue };
        let Some(text) = scalar::text(node, field, findings).filter(|text| *text != expected) else {
            continue;
        };
        let message = format!("`{}` is no `{field}` that this version reads", shown(text));
        ours &= text != PROXY_CONFIG;
        if text == PROXY_CONFIG {
            let fix = "this is a sidecar's configuration: check it with `sidegate-proxy check-config FILE`";
            findings.add(code, &node.span, message, fix);
        } else {
            findings.add(code, &node.span, message, fix);
        }
    }
    ours
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
    probes: Vec<Probe>,
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
        let known = ["appliesTo", "mode", "auditUntil", "probes", "egress", "ingress"];
        let fields = Fields::open(node, "`spec`", &known, findings)?;
        Some(Spec {
            applies_to: fields
                .value("appliesTo")
                .map(|node| texts(node, "appliesTo", findings, super::ends::spiffe)),
            audit_until: audit(&fields, findings),
            probes: probes(&fields, findings),
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

fn probes(fields: &Fields<'_, '_>, findings: &mut Findings<'_>) -> Vec<Probe> {
    let Some(node) = fields.value("probes") else { return Vec::new() };
    list(node, "probes", findings).iter().filter_map(|item| probe(item, findings)).collect()
}

/// One port and one path, with nothing that could stand for others.
fn probe(node: &Node<'_>, findings: &mut Findings<'_>) -> Option<Probe> {
    let fields = Fields::open(node, "a probe", &["port", "path"], findings)?;
    let port = fields
        .required("port", "a probe", "add the port that is probed, such as `port: 8080`", findings)
        .and_then(|node| scalar::number(node, "port", ("port", 1..=u16::MAX), findings));
    let path = fields
        .required("path", "a probe", "add the path that is probed, such as `path: /healthz`", findings)
        .and_then(|node| probe_path(node, findings));
    Some(Probe { port: port?, path: path? })
}

fn probe_path(node: &Node<'_>, findings: &mut Findings<'_>) -> Option<CanonicalPath> {
    let text = scalar::text(node, "path", findings)?;
    let message = |error: &dyn std::fmt::Display| format!("bad path `{}`: {error}", shown(text));
    match PathPattern::parse(text) {
        Ok(_) if text.contains('*') => {
            let fix = "name each path that is probed";
            findings.add("path", &node.span, message(&"a probe has one exact path"), fix);
        }
        Ok(pattern) => return CanonicalPath::parse(pattern.as_str()).ok(),
        Err(error) => findings.add("path", &node.span, message(&error), error.fix()),
    }
    None
}

fn rules<T: RuleEnd>(fields: &Fields<'_, '_>, direction: &str, findings: &mut Findings<'_>) -> Vec<Rule<T>> {
    let Some(node) = fields.value(direction) else { return Vec::new() };
    let mut rules = Vec::new();
    let mut seen = std::collections::HashMap::new();
    for item in list(node, direction, findings) {
        let Readout { name, rule } = rule::read(item, direction, findings);
        rules.extend(rule);
        // Also of rules that are refused for something else.
        let Some(name) = name else { continue };
        if let Some(first) = seen.insert(name.value.clone(), name.span.clone()) {
            let message = format!("two {direction} rules are named `{}`", name.value);
            findings.add("duplicate-rule", &name.span, message, "give each rule its own name");
            findings.relate(&first, "first named here");
        }
    }
    rules
}
