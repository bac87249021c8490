//! The `sidegate` command.
#![forbid(unsafe_code)]

fn main() {}
