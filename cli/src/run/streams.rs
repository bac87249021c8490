//! Standard streams that would lead the command out: what a descriptor refers to stays where it was opened.

use std::{
    fs::OpenOptions,
    io,
    os::fd::{AsFd, BorrowedFd},
};

use rustix::{
    fs::{FileType, OFlags, fcntl_getfl, fstat, major},
    net::{AddressFamily, SocketType, getpeername, sockopt},
    stdio,
    termios::isatty,
};

/// Null, zero, random and their like. null(4).
const MEMORY_DEVICES: u32 = 1;

/// Puts `/dev/null` in the place of standard streams that lead out, and says so.
///
/// # Errors
/// The kernel refuses to look at one or to replace it.
pub(super) fn close_ways_out() -> io::Result<()> {
    let [input, output, errors] =
        [stays(io::stdin().as_fd())?, stays(io::stdout().as_fd())?, stays(io::stderr().as_fd())?];
    if input && output && errors {
        return Ok(());
    }
    eprintln!(
        "sidegate: a standard stream is a network socket, a directory or a device and is closed to the command; use a pipe, as in \
         `cat | ...`"
    );
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    if !input {
        stdio::dup2_stdin(&null)?;
    }
    if !output {
        stdio::dup2_stdout(&null)?;
    }
    if !errors {
        stdio::dup2_stderr(&null)?;
    }
    Ok(())
}

/// Whether the command may have it.
///
/// A directory shows files as they are outside, uncovered sockets among them; a bare path (`O_PATH`) may be one or such a
/// socket. A device or a ring (io_uring) may belong to the network outside; terminals and `/dev/null` do not.
fn stays(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let status = match fstat(fd) {
        Ok(status) => status,
        // Closed, which leads nowhere.
        Err(rustix::io::Errno::BADF) => return Ok(true),
        Err(error) => return Err(error.into()),
    };
    if fcntl_getfl(fd)?.contains(OFlags::PATH) {
        return Ok(false);
    }
    Ok(match FileType::from_raw_mode(status.st_mode) {
        FileType::Fifo | FileType::RegularFile => true,
        FileType::Socket => is_settled_unix_socket(fd)?,
        FileType::CharacterDevice => major(status.st_rdev) == MEMORY_DEVICES || isatty(fd),
        _ => false,
    })
}

/// A socket lives in the network that it was made in. Only a connected Unix stream has one peer for good: any other Unix
/// socket could still be connected to abstract names of that network. unix(7).
fn is_settled_unix_socket(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let unix = sockopt::socket_domain(fd)? == AddressFamily::UNIX;
    let stream = matches!(sockopt::socket_type(fd)?, SocketType::STREAM | SocketType::SEQPACKET);
    Ok(unix && stream && getpeername(fd).is_ok())
}
