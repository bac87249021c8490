//! Runs cases one after another, each in a network namespace of its own.

use std::{fs, io, panic, process::ExitCode, time::Instant};

use rustix::{
    process::{getegid, geteuid},
    thread::UnshareFlags,
};

use crate::netns::{self, Netns};

/// A named test.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What it shows.
    pub name: &'static str,
    /// Panics when it is not so. Called in a fresh network namespace.
    pub run: fn(),
}

/// Runs the cases whose names contain one of the command line's words (all without words). Call it first in `main`.
///
/// # Panics
/// User namespaces are not available here.
pub fn main(cases: &[Case]) -> ExitCode {
    run(cases, || match become_root_of_a_user_namespace() {
        Ok(()) => true,
        Err(error) => panic!("user namespaces are needed for these tests and not available here: {error}"),
    })
}

/// As [`main`], for cases that need a second user and so the real root. Without it they are counted as ignored, or fail
/// where `CI` is set, which promises it.
///
/// # Panics
/// The caller is not root although `CI` is set.
pub fn main_as_root(cases: &[Case]) -> ExitCode {
    run(cases, || {
        let root = geteuid().is_root();
        assert!(root || std::env::var_os("CI").is_none(), "these tests need root, which CI promises");
        root
    })
}

fn run(cases: &[Case], prepare: impl FnOnce() -> bool) -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let listing = std::env::args().any(|word| word == "--list");
    let able = listing || prepare();
    let begun = Instant::now();
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    for case in
        cases.iter().filter(|case| words.is_empty() || words.iter().any(|word| case.name.contains(word)))
    {
        if listing {
            println!("{}: test", case.name);
            continue;
        }
        if !able {
            println!("test {} ... ignored, needs root", case.name);
            ignored += 1;
            continue;
        }
        let started = Instant::now();
        let netns = Netns::new();
        let outcome = panic::catch_unwind(|| netns.run(case.run));
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("test {} ... {word} ({:.2} s)", case.name, started.elapsed().as_secs_f32());
        let count = if outcome.is_ok() { &mut passed } else { &mut failed };
        *count += 1;
    }
    if !listing {
        // As the standard runner says it, so that whoever adds up results finds it.
        let word = if failed == 0 { "ok" } else { "FAILED" };
        let (others, seconds) = (cases.len() - passed - failed - ignored, begun.elapsed().as_secs_f32());
        println!(
            "\ntest result: {word}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; {others} filtered out; \
             finished in {seconds:.2}s\n"
        );
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

/// New user and network namespaces in which the caller is uid 0 with every capability.
fn become_root_of_a_user_namespace() -> io::Result<()> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    netns::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}
