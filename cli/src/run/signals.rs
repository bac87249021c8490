//! Which signals are passed on to the command.

use rustix::process::Signal;

/// What the outer side reads instead of dying or stopping: those that ask a program to end, reload, look up or step back.
pub(super) const PASSED_ON: [i32; 11] = [
    Signal::HUP.as_raw(),
    Signal::INT.as_raw(),
    Signal::QUIT.as_raw(),
    Signal::USR1.as_raw(),
    Signal::USR2.as_raw(),
    Signal::ALARM.as_raw(),
    Signal::TERM.as_raw(),
    Signal::CONT.as_raw(),
    Signal::WINCH.as_raw(),
    Signal::TSTP.as_raw(),
    Signal::TTOU.as_raw(),
];

/// Tells the proxy that the process which the caller waits for is gone.
pub(super) const ORPHANED: Signal = Signal::POWER;

/// What the first process inside reads: all of those, its children's changes, and the terminal's refusals.
pub(super) const ALL: [i32; 13] = [
    Signal::HUP.as_raw(),
    Signal::INT.as_raw(),
    Signal::QUIT.as_raw(),
    Signal::USR1.as_raw(),
    Signal::USR2.as_raw(),
    Signal::ALARM.as_raw(),
    Signal::TERM.as_raw(),
    Signal::CONT.as_raw(),
    Signal::WINCH.as_raw(),
    Signal::TSTP.as_raw(),
    Signal::TTIN.as_raw(),
    Signal::TTOU.as_raw(),
    Signal::CHILD.as_raw(),
];
