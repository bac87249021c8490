//! What the tests of `sidegate run` share: the program, and the same tests once more as an ordinary user.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test may panic, its small functions too")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Where the program is for a run as an ordinary user, who may not read the folder that it was built in.
const PROGRAM: &str = "SIDEGATE_PROGRAM";

/// The program under test.
pub(crate) fn program() -> PathBuf {
    std::env::var_os(PROGRAM).map_or_else(|| env!("CARGO_BIN_EXE_sidegate").into(), Into::into)
}

/// `sidegate run --quiet` with these arguments.
pub(crate) fn sidegate(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(["run", "--quiet"]).args(arguments);
    command
}

/// A shell script behind the gate.
pub(crate) fn shell(script: &str) -> Output {
    sidegate(&["--", "sh", "-c", script]).output().unwrap()
}

/// What a program printed, both ways.
pub(crate) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs every other test of the calling binary as an ordinary user. Where the caller is one, they ran so already.
///
/// # Panics
/// One of them fails, or none ran.
pub(crate) fn as_an_ordinary_user(but: &str) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    open_to_all(place.path());
    let copy = |from: &Path, name: &str| {
        let to = place.path().join(name);
        fs::copy(from, &to).unwrap();
        open_to_all(&to);
        to
    };
    let tests = copy(&std::env::current_exe().unwrap(), "tests");
    let ran = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--"])
        .arg(tests)
        .args(["--skip", but])
        .env(PROGRAM, copy(&program(), "sidegate"))
        .env("HOME", place.path())
        .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
        .current_dir("/")
        .output()
        .unwrap();
    assert!(ran.status.success(), "as user 65534:\n{}", text(&ran));
    assert!(text(&ran).contains("test result: ok. ") && !text(&ran).contains(" 0 passed"), "{}", text(&ran));
}

fn open_to_all(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
