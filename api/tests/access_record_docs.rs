//! docs/access-record.md says what the type says.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;
use sidegate_api::{AccessRecord, CloseReason, access_record::SCHEMA};

fn docs() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/access-record.md");
    fs::read_to_string(path).expect("the docs are there")
}

fn example() -> Value {
    let docs = docs();
    let block = docs.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    serde_json::from_str(block).expect("JSON")
}

/// The first cells of the table whose header begins so; each without its back-ticks.
fn rows(header: &str) -> Vec<(String, String)> {
    let docs = docs();
    let table = docs
        .lines()
        .skip_while(|line| !line.starts_with(header))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    table
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            (cells[1].trim_matches('`').to_owned(), cells[2].to_owned())
        })
        .collect()
}

#[test]
fn the_example_is_a_record_with_every_field() {
    let example = example();
    let record: AccessRecord = serde_json::from_value(example.clone()).expect("a record");
    assert_eq!(record.schema, SCHEMA);
    assert_eq!(serde_json::to_value(&record).expect("JSON"), example, "a field is unknown or lost");
    let fields: BTreeSet<String> = example.as_object().expect("an object").keys().cloned().collect();
    let documented: BTreeSet<String> = rows("| field ").into_iter().map(|(name, _)| name).collect();
    assert_eq!(documented, fields);
}

#[test]
fn exactly_the_fields_that_are_always_there_are_marked_so() {
    let mut least = example();
    let always: Vec<String> =
        rows("| field ").into_iter().filter(|(_, always)| always == "yes").map(|(n, _)| n).collect();
    least.as_object_mut().expect("an object").retain(|name, _| always.contains(name));
    let record: AccessRecord = serde_json::from_value(least.clone()).expect("no other field is needed");
    assert_eq!(serde_json::to_value(&record).expect("JSON"), least);
    for name in always {
        let mut without = least.clone();
        without.as_object_mut().expect("an object").remove(&name);
        assert!(serde_json::from_value::<AccessRecord>(without).is_err(), "{name} is not always there");
    }
}

#[test]
fn every_close_reason_is_documented() {
    let words = rows("| close reason ").into_iter().map(|(word, _)| word);
    let parsed: Vec<CloseReason> =
        words.map(|word| serde_json::from_value(Value::from(word)).expect("a close reason")).collect();
    // Exhaustive: a new reason does not compile until it is counted here.
    let count = |reason: &CloseReason| match reason {
        CloseReason::Done
        | CloseReason::ClientReset
        | CloseReason::UpstreamReset
        | CloseReason::Denied
        | CloseReason::PolicyChanged
        | CloseReason::IdleTimeout
        | CloseReason::Drained
        | CloseReason::ConnectFailed
        | CloseReason::TlsRefused
        | CloseReason::PeerUntrusted
        | CloseReason::Internal => 1,
    };
    assert_eq!(parsed.iter().map(count).sum::<usize>(), 11);
}
