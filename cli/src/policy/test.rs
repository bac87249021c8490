//! `sidegate policy test`: expectations as code.

use std::{collections::HashMap, path::PathBuf, process::ExitCode};

use clap::Args;
use sidegate_policy::{PolicySet, Source, SpiffeId, document::cases};

use super::{compiled, report};

/// Check a policy against a list of expectations.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 every case is as expected, 1 some are not, 2 wrong usage or an invalid file.

A case:
  - name: payments reach the card processor
    host: api.stripe.com          # or ip; direction, protocol, method, path, from, to as in `explain`
    port: 443
    expect: allowed               # allowed | denied | would-deny
    rule: payments/stripe         # optional
    reason: rule-allows           # optional")]
pub(crate) struct TestArgs {
    /// Policy files, YAML or JSON.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The list of cases, YAML or JSON.
    #[arg(long, value_name = "CASES")]
    cases: PathBuf,
    /// One JSON object on standard output instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct Answer {
    passed: usize,
    failed: usize,
    cases: Vec<Outcome>,
}

#[derive(serde::Serialize)]
struct Outcome {
    name: String,
    line: usize,
    passed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    difference: Option<String>,
}

pub(super) fn run(args: &TestArgs) -> ExitCode {
    let file = args.cases.display().to_string();
    let text = match std::fs::read_to_string(&args.cases) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("sidegate: {file}: {error}");
            return ExitCode::from(2);
        }
    };
    let source = Source::new(file.as_str(), text);
    let cases = match cases::parse_cases(&source) {
        Ok(cases) => cases,
        Err(diagnostics) => {
            report::print(&[source], &diagnostics);
            return ExitCode::from(2);
        }
    };
    // Which policies apply depends on the workload of a case.
    let mut sets: HashMap<Option<SpiffeId>, PolicySet> = HashMap::new();
    let mut outcomes = Vec::new();
    for case in cases {
        let workload = case.scenario.workload.clone();
        if !sets.contains_key(&workload) {
            let Some(set) = compiled::set(&args.files, workload.clone()) else { return ExitCode::from(2) };
            sets.insert(workload.clone(), set);
        }
        let difference = sets.get(&workload).and_then(|set| case.judge(set, compiled::today()));
        outcomes.push(Outcome { name: case.name, line: case.line, passed: difference.is_none(), difference });
    }
    print(args, &file, outcomes)
}

fn print(args: &TestArgs, file: &str, cases: Vec<Outcome>) -> ExitCode {
    let failed = cases.iter().filter(|case| !case.passed).count();
    let passed = cases.len() - failed;
    if args.json {
        compiled::print_json(&Answer { passed, failed, cases });
    } else {
        for case in &cases {
            match &case.difference {
                None => report::say(&format!("ok      {}", case.name)),
                Some(why) => {
                    report::say(&format!("FAILED  {}\n        {file}:{}: {why}", case.name, case.line))
                }
            }
        }
        report::say(&format!("{passed} as expected, {failed} not"));
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
