//! What the compiler can't check of this repository. Each rule looks at a [`Tree`] and lists what breaks it;
//! `tests/tree.rs` runs every rule over the real one.
#![forbid(unsafe_code)]

pub mod crates;
pub mod lexer;
pub mod prose;
pub mod sources;
pub mod tree;
pub mod words;

pub use tree::{File, Tree};

/// A rule: its name, and the function that finds what breaks it, each as `path:line: what is wrong`.
pub type Rule = (&'static str, fn(&Tree) -> Vec<String>);

/// Every rule.
pub const RULES: &[Rule] = &[
    ("crates depend only along the arrows", crates::arrows),
    ("every crate takes the workspace's lints", crates::lints),
    ("crates without system calls forbid unsafe code", crates::forbid_unsafe),
    ("cargo run starts the command line", crates::default_member),
    ("files are short", sources::length),
    ("unsafe stands only in proxy/src/sys", sources::unsafe_code),
    ("tests never sleep", sources::sleeping),
    ("no test is ignored", sources::ignored),
    ("no note of something left to do", sources::notes),
    ("no code is unfinished", sources::unfinished),
    ("names say what they mean", words::names),
    ("README shows its two commands", prose::commands),
    ("links resolve", prose::links),
    ("threats name the tests of their defences", prose::shown),
    ("the code map names every folder", prose::map),
];
