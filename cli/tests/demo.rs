//! The whole system in one go, judged by the far ends.

use std::process::Command;

#[test]
fn every_verdict_of_the_demo_is_the_expected_one() {
    let shown = Command::new(env!("CARGO_BIN_EXE_sidegate")).args(["demo", "--once"]).output().unwrap();
    let text = String::from_utf8_lossy(&shown.stdout);
    assert_eq!(shown.status.code(), Some(0), "{text}\n{}", String::from_utf8_lossy(&shown.stderr));
    assert!(text.contains("attacker: connections and datagrams            0"), "{text}");
    assert!(!text.contains("UNEXPECTED"), "{text}");
}
