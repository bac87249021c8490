//! The `sidegate-proxy` command.

fn main() {}
