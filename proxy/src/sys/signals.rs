//! Signals as a descriptor that can be polled, with their origin.

use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// Blocks a set of signals for this thread (and the threads and children that it makes later) and reads them instead.
/// signalfd(2).
#[derive(Debug)]
pub struct SignalSource {
    descriptor: OwnedFd,
}

/// One signal that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Its number.
    pub signal: i32,
    /// It came from the kernel (the terminal, a child's change of state), not from a process by kill(2).
    pub from_kernel: bool,
}

impl SignalSource {
    /// Blocks `signals` and opens the source.
    ///
    /// # Errors
    /// The kernel refuses (an invalid number, no descriptors).
    pub fn new(signals: &[i32]) -> io::Result<Self> {
        let set = signal_set(signals)?;
        // SAFETY: `set` is initialised; no old mask is asked for.
        let failed = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if failed != 0 {
            return Err(io::Error::from_raw_os_error(failed));
        }
        // SAFETY: `set` is initialised; -1 asks for a new descriptor.
        let raw = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `raw` was just opened and belongs to nobody else.
        Ok(SignalSource { descriptor: unsafe { OwnedFd::from_raw_fd(raw) } })
    }

    /// The next signal; `None` when none is pending.
    ///
    /// # Errors
    /// Reading fails.
    pub fn next(&self) -> io::Result<Option<Arrived>> {
        // SAFETY: an all-zero `signalfd_siginfo` is a valid value for the kernel to fill.
        let mut report: libc::signalfd_siginfo = unsafe { mem::zeroed() };
        let size = mem::size_of::<libc::signalfd_siginfo>();
        // SAFETY: the buffer is valid for `size` bytes.
        let read = unsafe { libc::read(self.descriptor.as_raw_fd(), (&raw mut report).cast(), size) };
        match usize::try_from(read) {
            Ok(read) if read == size => Ok(Some(Arrived {
                signal: i32::try_from(report.ssi_signo).unwrap_or(0),
                from_kernel: report.ssi_code > 0,
            })),
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                error => Err(error),
            },
        }
    }
}

impl AsFd for SignalSource {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

fn signal_set(signals: &[i32]) -> io::Result<libc::sigset_t> {
    // SAFETY: `sigemptyset` initialises the set before anything reads it.
    let mut set: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: `set` is valid for writes.
    unsafe { libc::sigemptyset(&raw mut set) };
    for signal in signals {
        // SAFETY: `set` is initialised; an invalid number yields EINVAL.
        if unsafe { libc::sigaddset(&raw mut set, *signal) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_from_a_program_is_told_from_one_of_the_kernel() {
        let source = SignalSource::new(&[libc::SIGURG]).unwrap();
        assert_eq!(source.next().unwrap(), None);
        let me = rustix::thread::gettid();
        // SAFETY: sends a blocked, harmless signal to the calling thread alone.
        unsafe { libc::syscall(libc::SYS_tkill, me.as_raw_nonzero().get(), libc::SIGURG) };
        assert_eq!(source.next().unwrap(), Some(Arrived { signal: libc::SIGURG, from_kernel: false }));
    }
}
