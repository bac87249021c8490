//! One verdict over 10,000 rules and 100,000 prefixes, and the same by looking at every rule.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use sidegate_benches::{Scenario, large_policy};
use sidegate_policy::{CompileOptions, PolicySet, reference};

fn decide(criterion: &mut Criterion) {
    let documents = large_policy();
    let options = CompileOptions::default();
    let set = PolicySet::compile(&documents, &options).expect("the rules agree");
    for scenario in Scenario::all() {
        let requests = scenario.requests();
        let mut group = criterion.benchmark_group(scenario.name);
        let mut turn = requests.iter().cycle();
        group.bench_function("compiled", |bencher| {
            bencher.iter(|| black_box(set.decide(turn.next().expect("an endless cycle"))));
        });
        group.sample_size(10);
        let mut turn = requests.iter().cycle();
        group.bench_function("linear", |bencher| {
            bencher.iter(|| {
                black_box(reference::judge(&documents, &options, turn.next().expect("an endless cycle")))
            });
        });
        group.finish();
    }
}

criterion_group!(benches, decide);
criterion_main!(benches);
