//! Which parts of the policies are recorded rather than enforced in this run, and the line that says so.

use sidegate_policy::{
    Date, Document,
    document::{Action, Spanned},
};

use super::args::Mode;

/// The last day that a date can name; audit mode of a run has no end of its own.
const FOREVER: Date = Date::from_days(2_932_896);

/// Puts what the command line demands in the place of what the documents say. `Some`: what to tell of it.
pub(super) fn settle(documents: &mut [Document], mode: Option<Mode>, today: Date) -> Option<String> {
    match mode {
        Some(Mode::Audit) => {
            documents.iter_mut().for_each(|document| document.audit_until = Some(FOREVER));
            None
        }
        Some(Mode::Enforce) => {
            let audits = lenient(documents, today)?;
            documents.iter_mut().for_each(enforce);
            Some(format!("--mode enforce: {audits} is enforced in this run, although written as in audit"))
        }
        None => lenient(documents, today).map(|audits| {
            format!(
                "WARNING: NOT ENFORCED, audit only: {audits}: what it would deny PASSES, recorded as would-deny; \
                 --mode enforce refuses it"
            )
        }),
    }
}

fn enforce(document: &mut Document) {
    document.audit_until = None;
    document.egress.iter_mut().for_each(|rule| rule.audit_until = None);
    document.ingress.iter_mut().for_each(|rule| rule.audit_until = None);
}

/// What passes although it is denied: "policy `a` (until 2026-12-01), rule `x` of policy `b` (until 2026-12-31)".
fn lenient(documents: &[Document], today: Date) -> Option<String> {
    let holds = |until: Option<Date>| until.filter(|last| today <= *last);
    // A policy in audit passes what no rule allows only while every other one is in audit too.
    let all = documents.iter().all(|document| holds(document.audit_until).is_some());
    let mut found = Vec::new();
    for document in documents {
        let policy = &document.name.value;
        let denies = document.egress.iter().any(|rule| rule.action == Action::Deny);
        if let Some(until) = holds(document.audit_until).filter(|_| all || denies) {
            found.push(format!("policy `{policy}` (until {until})"));
        }
        for rule in &document.egress {
            let Spanned { value: name, .. } = &rule.name;
            found.extend(
                holds(rule.audit_until)
                    .map(|until| format!("rule `{name}` of policy `{policy}` (until {until})")),
            );
        }
    }
    (!found.is_empty()).then(|| found.join(", "))
}
