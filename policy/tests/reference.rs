//! The reference in docs/ against the code: its examples parse, and it names every code that a user can meet.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

use std::{collections::BTreeSet, fs, path::Path};

use sidegate_policy::{Source, document};

fn reference() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policy.md")).unwrap()
}

/// The reference names every code that a user can meet.
#[test]
fn the_reference_lists_every_code() {
    let reference = reference();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bad");
    let met: BTreeSet<&str> = fs::read_dir(fixtures)
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .filter_map(|text| document::parse(&Source::new("bad.yaml", text)).err())
        .flatten()
        .map(|diagnostic| diagnostic.code)
        .collect();
    assert!(met.len() > 30, "only {met:?}");
    let missing: Vec<_> = met.iter().filter(|code| !reference.contains(&format!("`{code}`"))).collect();
    assert!(missing.is_empty(), "docs/policy.md lacks {missing:?}");
}

/// Its examples are policies, whole or as rules.
#[test]
fn the_examples_of_the_reference_parse() {
    let reference = reference();
    let examples: Vec<&str> =
        reference.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(examples.len() >= 3, "only {} examples", examples.len());
    for example in examples {
        let header = "apiVersion: sidegate.dev/v1\nkind: Policy\nmetadata: { name: example }\nspec:\n";
        let text = match example {
            whole if whole.contains("apiVersion") => whole.to_owned(),
            spec => format!("{header}{}", spec.lines().map(|line| format!("  {line}\n")).collect::<String>()),
        };
        if let Err(errors) = document::parse(&Source::new("docs/policy.md", text.as_str())) {
            panic!("{errors:#?}\n{text}");
        }
    }
}
