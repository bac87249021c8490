//! What a verdict costs, for a shared machine: the fastest and the median round, and under callgrind the instructions.
//!
//! `verdicts` prints nanoseconds. `verdicts SCENARIO ROUNDS` only judges: the difference of two counts of rounds under
//! `valgrind --tool=callgrind`, divided by 4,096 requests a round, is the instructions of one verdict.

use std::{hint::black_box, time::Instant};

use sidegate_benches::{Scenario, large_policy};
use sidegate_policy::{CompileOptions, PolicySet, Request};

const ROUNDS: usize = 400;

fn main() {
    let set = PolicySet::compile(&large_policy(), &CompileOptions::default()).expect("the rules agree");
    let mut arguments = std::env::args().skip(1);
    let chosen = arguments.next();
    let rounds = arguments.next().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS);
    for scenario in Scenario::all() {
        let requests = scenario.requests();
        match &chosen {
            Some(name) if name == scenario.name => (0..rounds).for_each(|_| judge_all(&set, &requests)),
            Some(_) => {}
            None => print(scenario.name, &set, &requests),
        }
    }
}

fn judge_all(set: &PolicySet, requests: &[Request<'_>]) {
    for request in requests {
        black_box(set.decide(black_box(request)));
    }
}

fn print(name: &str, set: &PolicySet, requests: &[Request<'_>]) {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            judge_all(set, requests);
            start.elapsed().as_secs_f64() * 1e9 / requests.len() as f64
        })
        .collect();
    rounds.sort_unstable_by(f64::total_cmp);
    let (least, median) = (rounds.first(), rounds.get(ROUNDS / 2));
    if let (Some(least), Some(median)) = (least, median) {
        println!("{name:<18} {least:>6.0} ns least {median:>6.0} ns median");
    }
}
