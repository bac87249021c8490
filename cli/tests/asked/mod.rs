//! What the tests of `sidegate policy` share: one question and its answer.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test may panic, its small functions too")]

use std::{
    io::Write,
    process::{Command, Stdio},
};

/// What came back.
pub(crate) struct Answered {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// `sidegate policy COMMAND ARGUMENTS...`, divided at spaces, with a policy on standard input.
pub(crate) fn policy(command: &str, arguments: &str, stdin: &str) -> Answered {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sidegate"))
        .args(["policy", command])
        .args(arguments.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have answered without reading.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    Answered { status: output.status.code().unwrap(), stdout, stderr }
}

impl Answered {
    /// Standard output as the one JSON value that it is.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap()
    }
}
