//! `sidegate policy test`: expectations as code.

use std::{
    collections::{HashMap, hash_map::Entry},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use sidegate_policy::{
    Direction, PolicySet, SpiffeId,
    document::{
        cases::{self, Case},
        notes::INGRESS_UNENFORCED,
    },
};

use super::{
    answer, compiled,
    read::{self, Reading},
    report,
};

/// Check a policy against a list of expectations.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 every case is as expected, 1 some are not or a file is invalid, 2 wrong usage or a file that can't be read.
With --json an invalid file gives `\"valid\": false` and its errors, as `check --json` does.
A treatment that this build does not carry out yet is denied, with the reason `not-supported`.

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
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
}

pub(super) fn run(args: &TestArgs) -> ExitCode {
    judge(args).unwrap_or_else(|status| status)
}

fn judge(args: &TestArgs) -> Result<ExitCode, ExitCode> {
    let loaded = compiled::load(&args.files, args.json)?;
    let cases = read_cases(args)?;
    // Which policies apply depends on the workload of a case.
    let mut sets: HashMap<Option<SpiffeId>, PolicySet> = HashMap::new();
    let mut outcomes = Vec::new();
    for case in cases {
        let set = match sets.entry(case.scenario.workload.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let set = loaded.set(new.key().clone())?;
                new.insert(set)
            }
        };
        let difference = case.judge(set, compiled::today(), compiled::built(case.scenario.direction));
        let inbound = case.scenario.direction == Direction::Ingress;
        let note = inbound.then_some(INGRESS_UNENFORCED);
        let passed = difference.is_none();
        outcomes.push(Outcome { name: case.name, line: case.line, passed, difference, note });
    }
    Ok(print(args, outcomes))
}

fn read_cases(args: &TestArgs) -> Result<Vec<Case>, ExitCode> {
    let mut reading = Reading::default();
    match read::read_source(&args.cases) {
        Ok((source, None)) => match cases::parse_cases(&source) {
            Ok(cases) => return Ok(cases),
            Err(diagnostics) => {
                reading.diagnostics = diagnostics;
                reading.sources.push(source);
            }
        },
        Ok((source, Some(fault))) => {
            reading.diagnostics.push(fault);
            reading.sources.push(source);
        }
        Err(error) => reading.unreadable.push((args.cases.clone(), error)),
    }
    Err(answer::refuse(&reading, args.json))
}

fn print(args: &TestArgs, cases: Vec<Outcome>) -> ExitCode {
    let file = args.cases.display();
    let failed = cases.iter().filter(|case| !case.passed).count();
    let passed = cases.len() - failed;
    if args.json {
        report::say_json(&Answer { passed, failed, cases });
    } else {
        for case in &cases {
            match &case.difference {
                None => report::say(&format!("ok      {}", case.name)),
                Some(why) => {
                    report::say(&format!("FAILED  {}\n        {file}:{}: {why}", case.name, case.line))
                }
            }
        }
        if let Some(note) = cases.iter().find_map(|case| case.note) {
            report::say(&format!("note: {note}"));
        }
        report::say(&format!("{passed} as expected, {failed} not"));
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
