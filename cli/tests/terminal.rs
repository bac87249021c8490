//! `sidegate run` on a terminal that script(1) makes: interactive shells, job control, and pushed input.

#![allow(clippy::unwrap_used, reason = "a test may panic, its small functions too")]

mod gate;

use std::process::{Command, Stdio};

/// Runs a bash script on a terminal of its own; `$S` is `sidegate run --quiet --`.
fn on_a_terminal(script: &str) -> String {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("script.bash");
    std::fs::write(&file, script).unwrap();
    let shown = Command::new("script")
        .args(["-qec", &format!("exec bash {}", file.display()), "/dev/null"])
        .env("S", format!("{} run --quiet --", gate::program().display()))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&shown.stdout).replace('\r', "")
}

#[test]
fn all_of_it_holds_for_an_ordinary_user() {
    gate::as_an_ordinary_user("all_of_it_holds_for_an_ordinary_user");
}

#[test]
fn a_command_that_stops_stops_sidegate_and_goes_on_with_it() {
    let shown = on_a_terminal(
        "set -m\n$S sh -c 'kill -STOP $$; echo resumed; exit 9'\necho \"first $?\"\nfg\necho \"then $?\"\n",
    );
    // 128 + SIGSTOP.
    assert!(shown.contains("first 147"), "{shown}");
    assert!(shown.contains("resumed\nthen 9"), "{shown}");
}

#[test]
fn an_interactive_shell_has_job_control_and_gives_the_terminal_back() {
    let shown = on_a_terminal(
        "$S bash --norc -ic 'set -o | grep monitor; test -t 0 && echo terminal'\nread -r -t 0 line < /dev/tty; echo back\n",
    );
    assert!(shown.contains("monitor") && shown.contains("on\nterminal\n"), "{shown}");
    assert!(shown.contains("back"), "{shown}");
    assert!(!shown.contains("no job control"), "{shown}");
}

#[test]
fn nothing_is_typed_for_the_shell_outside() {
    let push = "import fcntl, termios
try: fcntl.ioctl(0, termios.TIOCSTI, b'#')
except OSError as refused: print('errno', refused.errno)
else: print('pushed')";
    assert!(on_a_terminal(&format!("$S python3 -c \"{push}\"")).contains("errno 1\n"));
    // The negative control. Kernels with `dev.tty.legacy_tiocsti=0` refuse everybody, but by EIO.
    let outside = on_a_terminal(&format!("python3 -c \"{push}\""));
    assert!(outside.contains("pushed") || outside.contains("errno 5\n"), "{outside}");
}
