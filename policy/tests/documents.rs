//! Fixtures: every bad document gives exactly the diagnostics beside it; every good one parses and round-trips.
//!
//! After a deliberate change of messages: `UPDATE_EXPECTED=1 cargo test -p sidegate-policy --test documents`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use sidegate_policy::{Source, document};

fn fixtures(kind: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(kind);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml" || extension == "json"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no fixtures in {}", folder.display());
    files
}

fn source(path: &Path) -> Source {
    Source::new(path.file_name().unwrap().to_str().unwrap(), fs::read_to_string(path).unwrap())
}

#[test]
fn every_bad_fixture_gives_exactly_its_diagnostics() {
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let mut wrong = Vec::new();
    for path in fixtures("bad") {
        let found = match document::parse(&source(&path)) {
            Ok(_) => "accepted\n".to_owned(),
            Err(diagnostics) => diagnostics.iter().map(|diagnostic| format!("{diagnostic}\n")).collect(),
        };
        let expected_path = path.with_extension("expected");
        if update {
            fs::write(&expected_path, &found).unwrap();
        }
        let expected = fs::read_to_string(&expected_path).unwrap_or_default();
        if found != expected || found == "accepted\n" {
            wrong.push(format!("{}\n expected:\n{expected} found:\n{found}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn diagnostics_stand_in_order_and_carry_a_fix() {
    for path in fixtures("bad") {
        let diagnostics = document::parse(&source(&path)).unwrap_err();
        assert!(diagnostics.is_sorted_by_key(|diagnostic| diagnostic.span.start), "{}", path.display());
        for diagnostic in diagnostics {
            let place = source(&path).place(diagnostic.span.start);
            assert_eq!((diagnostic.line, diagnostic.column), place, "{diagnostic}");
            assert!(!diagnostic.fix.is_empty() && !diagnostic.message.is_empty(), "{diagnostic}");
        }
    }
}

#[test]
fn every_good_fixture_parses_and_round_trips() {
    for path in fixtures("good") {
        let documents = document::parse(&source(&path))
            .unwrap_or_else(|errors| panic!("{}: {errors:#?}", path.display()));
        for document in documents {
            let yaml = document.to_yaml();
            let again = document::parse(&Source::new("written.yaml", yaml.as_str()))
                .unwrap_or_else(|errors| panic!("{errors:#?}\n{yaml}"));
            assert_eq!(again.len(), 1);
            assert_eq!(again[0].to_yaml(), yaml);
            assert_eq!(again[0].without_places(), document.without_places(), "{yaml}");
        }
    }
}
