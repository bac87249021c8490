//! A denial in words: what happened, which rule came closest, what to do.

use sidegate_policy::{Decision, PolicySet, Predicate, Reason, Verdict};

/// The explanation of a refusal; `None` where nothing was refused.
pub(crate) fn explain(set: &PolicySet, decision: &Decision) -> Option<String> {
    if decision.verdict == Verdict::Allowed {
        return None;
    }
    let mut text = decision.reason.meaning().to_owned();
    if let Some(rule) = decision.rule {
        let facts = set.rule(rule);
        text += &format!(
            " Rule `{}` of policy `{}` ({}:{})",
            facts.name, facts.policy, facts.place.0, facts.place.1
        );
        if let Some(why) = &facts.reason {
            text += &format!(", {why}");
        }
        text.push('.');
    }
    if let Some(near) = decision.nearest {
        let facts = set.rule(near.rule);
        let (name, policy, (file, line)) = (&facts.name, &facts.policy, &facts.place);
        text += &format!(
            " Nearest rule: `{name}` of policy `{policy}` ({file}:{line}), but {}.",
            lacks(near.failed)
        );
    }
    append(&mut text, decision.reason.fix());
    Some(text)
}

/// The explanation of a refusal that no rule is concerned in.
pub(crate) fn in_words(reason: Reason) -> String {
    let mut text = reason.meaning().to_owned();
    append(&mut text, reason.fix());
    text
}

fn append(text: &mut String, sentence: &str) {
    if !sentence.is_empty() {
        text.push(' ');
        text.push_str(sentence);
    }
}

fn lacks(failed: Predicate) -> &'static str {
    match failed {
        Predicate::Destination => "it names another destination",
        Predicate::Port => "it names another port",
        Predicate::Protocol => "it names another protocol",
        Predicate::Http => "it names other methods or paths",
        Predicate::Tls => "its TLS demands are not met",
        Predicate::Except => "it excepts this address",
    }
}
