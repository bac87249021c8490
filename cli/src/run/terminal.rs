//! The controlling terminal's foreground group, which an interactive shell inside may leave pointing at itself.

use std::os::fd::OwnedFd;

use rustix::{
    fs::{Mode, OFlags},
    process::Pid,
};

/// The terminal that this process is in the foreground of.
#[derive(Debug)]
pub(super) struct Foreground {
    terminal: OwnedFd,
    group: Pid,
}

impl Foreground {
    /// `None`: no controlling terminal, or somebody else is in the foreground.
    pub(super) fn remember() -> Option<Foreground> {
        let terminal =
            rustix::fs::open("/dev/tty", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())
                .ok()?;
        let group = rustix::process::getpgrp();
        (rustix::termios::tcgetpgrp(&terminal).ok()? == group).then_some(Foreground { terminal, group })
    }

    /// Takes the foreground back. SIGTTOU must be blocked, as this process may be in the background now.
    pub(super) fn restore(&self) {
        // A terminal that is gone needs no foreground.
        let _ = rustix::termios::tcsetpgrp(&self.terminal, self.group);
    }
}
