//! Which policies apply, read and compiled; every error at once.

use std::path::PathBuf;

use sidegate_policy::{
    CompileOptions, Diagnostic, Document, PolicySet, Source,
    document::{Action, Destination, Spanned},
    set::Generation,
};
use sidegate_proxy::clock::today;

use super::{args::Mode, auditing, member::Member};
use crate::policy::read::{self, Reading};

/// The policies of one run.
#[derive(Debug)]
pub(super) struct Policies {
    /// Compiled.
    pub(super) set: PolicySet,
    /// There was no file: everything is denied.
    pub(super) absent: bool,
    /// What is not enforced, or enforced against the policy's own word; one line.
    pub(super) audits: Option<String>,
    /// What the policies say and a run does not carry out, one line each.
    pub(super) remarks: Vec<String>,
}

/// Why there are no policies: files that can't be read, and every fault of the others.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) unreadable: Vec<(PathBuf, std::io::Error)>,
    pub(super) sources: Vec<Source>,
    pub(super) diagnostics: Vec<Diagnostic>,
}

/// Looked for in the current directory when no file is named.
pub(super) const DEFAULT_FILE: &str = "sidegate.yaml";

/// Reads and compiles the named files, or the default one.
///
/// # Errors
/// A file that can't be read, or every diagnostic of all files.
pub(super) fn load(
    named: &[PathBuf],
    mode: Option<Mode>,
    member: Option<&Member>,
) -> Result<Policies, Refused> {
    let fallback = PathBuf::from(DEFAULT_FILE);
    let files = match named {
        [] if fallback.exists() => std::slice::from_ref(&fallback),
        named => named,
    };
    let Reading { unreadable, sources, mut documents, diagnostics } = read::read(files);
    if !unreadable.is_empty() || !diagnostics.is_empty() {
        return Err(Refused { unreadable, sources, diagnostics });
    }
    if documents.is_empty() {
        documents.push(deny_everything());
    }
    let audits = auditing::settle(&mut documents, mode, today());
    let workload = member.map(|member| member.id().clone());
    let options = CompileOptions { generation: Generation(1), workload, ..CompileOptions::default() };
    match PolicySet::compile(&documents, &options) {
        Ok(set) => {
            Ok(Policies { remarks: remarks(&documents, &set, member), set, absent: files.is_empty(), audits })
        }
        Err(diagnostics) => Err(Refused { unreadable, sources, diagnostics }),
    }
}

fn remarks(documents: &[Document], set: &PolicySet, member: Option<&Member>) -> Vec<String> {
    let names = |picked: &dyn Fn(&Document) -> bool| {
        let picked = documents.iter().filter(|document| picked(document));
        let names: Vec<String> = picked.map(|document| format!("`{}`", document.name.value)).collect();
        (!names.is_empty())
            .then(|| format!("{} {}", if names.len() == 1 { "policy" } else { "policies" }, names.join(", ")))
    };
    let ingress: usize = documents.iter().map(|document| document.ingress.len()).sum();
    let inbound = names(&|document| !document.ingress.is_empty()).map(|policies| {
        format!(
            "{ingress} ingress {} of {policies} NOT enforced: this build captures no inbound connections (nobody \
             outside can connect to the command)",
            if ingress == 1 { "rule" } else { "rules" }
        )
    });
    let datagrams = (!set.udp_destinations().is_empty()).then(|| {
        "`udp` rules have no effect under `run` yet: datagrams other than DNS are refused".to_owned()
    });
    let bound = |document: &Document| member.is_none() && document.applies_to.is_some();
    let workloads = names(&bound).map(|policies| {
        format!("`appliesTo` of {policies} is ignored: without --identity this run is nobody, so it applies anyway")
    });
    let reached = |end: &Spanned<Destination>| matches!(end.value, Destination::Workloads(_));
    let allows = |document: &Document| {
        document.egress.iter().any(|rule| rule.action == Action::Allow && rule.ends.iter().any(reached))
    };
    let knows = member.is_some_and(Member::knows_peers);
    let mesh = names(&|document| !knows && allows(document)).map(|policies| {
        format!("rules with `workloads` of {policies} match nothing without --identity and --peers")
    });
    [inbound, datagrams, workloads, mesh].into_iter().flatten().collect()
}

/// A policy without rules, so that denials say `no-rule` rather than `no-policy`.
fn deny_everything() -> Document {
    Document {
        source: Source::new("<no policy file>", ""),
        name: Spanned { value: "deny-everything".to_owned(), span: 0..0 },
        owner: None,
        description: None,
        applies_to: None,
        audit_until: None,
        probes: Vec::new(),
        egress: Vec::new(),
        ingress: Vec::new(),
    }
}
