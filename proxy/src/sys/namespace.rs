//! Forking into namespaces, and the last steps before another program takes over.
//!
//! Everything here refuses to run beside other threads where that would be unsound, so that its callers need no `unsafe`.

use std::{io, os::fd::RawFd};

use rustix::{
    process::Pid,
    thread::{CapabilitySet, CapabilitySets, UnshareFlags},
};

/// Which side of [`fork`] one is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forked {
    /// The caller, with the new process's id (in the caller's PID namespace).
    Parent(Pid),
    /// The new process.
    Child,
}

/// Duplicates the calling process, which must have exactly one thread. fork(2).
///
/// # Errors
/// Other threads run (a lock that one of them holds would never open in the child), or the kernel refuses.
pub fn fork() -> io::Result<Forked> {
    demand_single_thread()?;
    // SAFETY: no other thread exists, so that no lock, allocator state or invariant of another thread is copied half-way.
    let pid = unsafe { libc::fork() };
    match pid {
        0 => Ok(Forked::Child),
        failed if failed < 0 => Err(io::Error::last_os_error()),
        pid => {
            Pid::from_raw(pid).map(Forked::Parent).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
        }
    }
}

/// Leaves the given namespaces for new ones. unshare(2).
///
/// # Errors
/// Other threads run, or the kernel refuses (`EPERM`, `ENOSPC`, `EINVAL`: namespaces are not available here).
pub fn unshare(flags: UnshareFlags) -> io::Result<()> {
    demand_single_thread()?;
    if flags.contains(UnshareFlags::FILES) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the descriptor table is not unshared, which is what could break the I/O safety of other threads.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// Ends the process at once: no destructors, no flushing. For a forked child that must not run its parent's clean-up.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(status) }
}

/// Marks descriptors from 3 upwards close-on-exec, unless `keep` wants the next program to inherit them.
///
/// # Errors
/// `/proc/self/fd` can't be read.
pub fn close_on_exec(keep: impl Fn(RawFd) -> bool) -> io::Result<()> {
    let open: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2 && !keep(*fd))
        .collect();
    for fd in open {
        // SAFETY: changes one flag of a descriptor number; a number that is closed by now only yields EBADF.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

/// Whether an inherited descriptor is a plain carrier of bytes (a pipe or a regular file). Sockets, directories and devices
/// can lead out of the namespaces.
pub fn is_plain_carrier(fd: RawFd) -> bool {
    // SAFETY: an all-zero `stat` is a valid value for the kernel to fill.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is valid for writes; a closed `fd` only yields EBADF.
    if unsafe { libc::fstat(fd, &raw mut stat) } != 0 {
        return false;
    }
    // SAFETY: reads flags of a descriptor number.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    flags & libc::O_PATH == 0 && matches!(stat.st_mode & libc::S_IFMT, libc::S_IFIFO | libc::S_IFREG)
}

/// Gives up every capability for good, for this process and what it executes: bounding, ambient, inheritable, permitted and
/// effective sets are empty, root regains nothing by exec, and set-user-ID programs gain nothing. capabilities(7).
///
/// # Errors
/// The kernel refuses a step; the process must not go on.
pub fn drop_capabilities() -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set().or_else(tolerate_inval)?;
    for capability in 0..64 {
        // SAFETY: PR_CAPBSET_DROP takes a number and touches no memory.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::EINVAL) => break,
                error => return Err(error),
            }
        }
    }
    // SAFETY: PR_SET_SECUREBITS takes a number and touches no memory.
    if unsafe { libc::prctl(libc::PR_SET_SECUREBITS, libc::c_ulong::from(LOCKED_SECURE_BITS), 0, 0, 0) } != 0
    {
        return Err(io::Error::last_os_error());
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, none)?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}

/// NOROOT, NO_SETUID_FIXUP and NO_CAP_AMBIENT_RAISE with their locks, and the lock of KEEP_CAPS. capabilities(7), linux/securebits.h.
const LOCKED_SECURE_BITS: u32 = 0b1110_1111;

/// Executes `program` (looked up in `PATH`) with `arguments` and this environment beside our own; returns only on
/// failure. Signal mask empty, SIGPIPE default.
pub fn execute(
    program: &std::ffi::OsStr,
    arguments: &[std::ffi::OsString],
    environment: &[(std::ffi::OsString, std::ffi::OsString)],
) -> io::Error {
    use std::os::unix::process::CommandExt;
    let environment = environment.iter().map(|(name, value)| (name, value));
    std::process::Command::new(program).args(arguments).envs(environment).exec()
}

fn tolerate_inval(error: rustix::io::Errno) -> Result<(), rustix::io::Errno> {
    if error == rustix::io::Errno::INVAL { Ok(()) } else { Err(error) }
}

fn demand_single_thread() -> io::Result<()> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads == 1 {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "other threads are running"))
    }
}
