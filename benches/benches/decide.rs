//! One verdict over 10,000 rules and 100,000 prefixes, and the same by looking at every rule.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use sidegate_benches::{address, host, large_policy, request};
use sidegate_policy::{CompileOptions, HostName, PolicySet, Request, reference};

/// Requests are asked in turn, so that no answer stays in the nearest cache.
const ASKED: usize = 4096;

fn decide(criterion: &mut Criterion) {
    let documents = large_policy();
    let options = CompileOptions::default();
    let set = PolicySet::compile(&documents, &options).expect("the rules agree");
    let hosts: Vec<HostName> = (0..10_000).step_by(2).take(ASKED).map(|number| host(number + 1)).collect();
    let unknown: Vec<HostName> = (0..4096).map(|number| host(20_000 + number)).collect();
    let numbers = || (0..ASKED as u64).map(|number| number * 17);
    let scenarios: [(&str, Vec<Request<'_>>); 4] = [
        ("host", hosts.iter().map(|host| request(Some(host), Some([8, 8, 8, 8].into()))).collect()),
        ("unknown host", unknown.iter().map(|host| request(Some(host), Some([8, 8, 8, 8].into()))).collect()),
        ("address", numbers().map(|number| request(None, Some(address(number)))).collect()),
        (
            "host and address",
            hosts.iter().zip(numbers()).map(|(host, at)| request(Some(host), Some(address(at)))).collect(),
        ),
    ];
    for (name, requests) in &scenarios {
        let mut group = criterion.benchmark_group(*name);
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
