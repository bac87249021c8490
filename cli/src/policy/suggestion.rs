//! A suggested rule, tried beside the policies it is meant for before it is shown.

use sidegate_policy::{
    Direction, Explanation, PolicySet, Reason, Source, Verdict,
    document::{self, cases::Scenario},
};

use super::compiled::{self, Loaded};

/// No policy of a person is called so.
const TRIAL: &str = "sidegate-tries-a-suggestion";

/// The rule, if it loads beside the policies and allows what was asked. Else what to change instead, as a comment.
pub(super) fn fitting(
    rule: String,
    loaded: &Loaded,
    scenario: &Scenario,
    explanation: &Explanation,
) -> String {
    if rule.starts_with('#') || allows(&rule, loaded, scenario).unwrap_or(false) {
        return rule;
    }
    let Some(near) = explanation.near.first() else {
        return "# no single rule beside these policies would allow this\n".to_owned();
    };
    let what = match (explanation.decision.reason, near.failed) {
        (Reason::AddressPrivate, _) => "if the name is meant to lead there, say `private: true` beside it in",
        (_, "http") => "name this request under `http` in",
        (_, "tls") => "mend the client, or change `tls` of",
        _ => "change `protocol` and `tls` of",
    };
    format!(
        "# {what} rule {}/{} ({}:{});\n# a second rule for the same connections would be refused (ambiguous-overlap)\n",
        near.rule.policy, near.rule.name, near.rule.file, near.rule.line
    )
}

fn allows(rule: &str, loaded: &Loaded, scenario: &Scenario) -> Option<bool> {
    let list = match scenario.direction {
        Direction::Egress => "egress",
        Direction::Ingress => "ingress",
    };
    let rule: String = rule.lines().map(|line| format!("    {line}\n")).collect();
    let head = "apiVersion: sidegate.dev/v1\nkind: Policy\n";
    let text = format!("{head}metadata: {{ name: {TRIAL} }}\nspec:\n  {list}:\n{rule}");
    let mut documents = document::parse(&Source::new(TRIAL, text)).ok()?;
    documents.extend_from_slice(loaded.documents());
    let set = PolicySet::compile(&documents, &compiled::options(scenario.workload.clone())).ok()?;
    let request = scenario.request_under(&set, compiled::today());
    Some(set.decide_for(&request, compiled::built(scenario.direction)).verdict == Verdict::Allowed)
}
