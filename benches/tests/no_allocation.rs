//! Judging allocates nothing, whatever the verdict.

use sidegate_benches::{Scenario, address, host, large_policy, request};
use sidegate_policy::{CompileOptions, PolicySet, Verdict};

#[test]
fn judging_allocates_nothing() {
    let set = PolicySet::compile(&large_policy(), &CompileOptions::default()).expect("the rules agree");
    let hosts: Vec<_> = (0..10_000).map(host).collect();
    let scenarios = Scenario::all();
    let in_scenarios: Vec<_> = scenarios.iter().flat_map(Scenario::requests).collect();
    let mut seen = [0_usize; 2];
    let allocations = allocation_counter::measure(|| {
        for request in &in_scenarios {
            std::hint::black_box(set.decide(request));
        }
        for (number, host) in (0_u64..).zip(&hosts) {
            for request in [request(Some(host), Some(address(number))), request(None, Some(address(number)))]
            {
                let decision = set.decide(&request);
                seen[usize::from(decision.verdict == Verdict::Allowed)] += 1;
                let _ = set.judge_answer(&request, &decision, address(number + 1));
                let _ = set.peek(request.address, None, request.peer, 443);
            }
            let _ = set.judge_name(host, request(None, None).today);
        }
    });
    assert_eq!(allocations.count_total, 0, "{allocations:?}");
    assert!(seen.iter().all(|count| *count > 1000), "denials and allowances were judged: {seen:?}");
}

#[test]
fn the_counter_counts() {
    let allocations = allocation_counter::measure(|| {
        std::hint::black_box(host(1));
    });
    assert!(allocations.count_total > 0);
}
