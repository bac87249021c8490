//! The large policy says what looking at every rule says.

use sidegate_benches::{Scenario, large_policy};
use sidegate_policy::{CompileOptions, Decision, PolicySet, Reason, Verdict, reference};

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

/// What each scenario is there to time does happen in it.
#[test]
fn scenarios_are_what_they_are_called() {
    let set = PolicySet::compile(&large_policy(), &CompileOptions::default()).expect("the rules agree");
    for scenario in Scenario::all() {
        let requests = scenario.requests();
        let decisions: Vec<_> = requests.iter().map(|request| set.decide(request)).collect();
        let allowed = decisions.iter().filter(|decision| decision.verdict == Verdict::Allowed).count();
        let near = |decision: &Decision| decision.reason == Reason::NoRule && decision.nearest.is_some();
        match scenario.name {
            "unknown host" => assert!(decisions.iter().all(near), "{:?}", decisions.first()),
            name => assert!(allowed * 2 > requests.len(), "{name}: {allowed} allowed"),
        }
    }
}
