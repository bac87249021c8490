//! The large policy says what looking at every rule says.

use sidegate_benches::{Scenario, large_policy};
use sidegate_policy::{CompileOptions, PolicySet, Verdict, reference};

#[test]
fn the_large_policy_agrees_with_the_reference() {
    let (documents, options) = (large_policy(), CompileOptions::default());
    let set = PolicySet::compile(&documents, &options).expect("the rules agree");
    let mut allowed = 0;
    for scenario in Scenario::all() {
        for request in scenario.requests().iter().step_by(173) {
            let (decision, said) = (set.decide(request), reference::judge(&documents, &options, request));
            let rule = decision.rule.map(|rule| set.rule(rule).name.to_string());
            assert_eq!(
                (decision.verdict, decision.reason, rule, decision.treatment),
                (said.verdict, said.reason, said.rule.map(|(_, name)| name), said.treatment),
                "{}: {request:?}",
                scenario.name
            );
            let nearest = decision.nearest.map(|near| (set.rule(near.rule).name.to_string(), near.failed));
            assert_eq!(nearest, said.nearest.map(|((_, name), failed)| (name, failed)), "{request:?}");
            allowed += usize::from(decision.verdict == Verdict::Allowed);
        }
    }
    assert!((20..100).contains(&allowed), "both verdicts were compared: {allowed} allowed");
}
