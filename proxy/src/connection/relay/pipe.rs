//! Pipes for `splice`: bytes go from socket to socket without passing through user space.

use std::{
    cell::RefCell,
    io,
    os::fd::OwnedFd,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::{io::Interest, net::TcpStream};

use crate::limits::{DescriptorSlot, Limits};

/// Bytes that a pipe holds, if the kernel grants it (pipe(7), `pipe-user-pages-soft`).
const CAPACITY: usize = 1024 * 1024;
/// Pipes that a worker keeps open for later use.
const KEPT: usize = 16;

thread_local! {
    static POOL: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// An empty pipe, or one in use by a flow that knows how many bytes are in it.
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    capacity: usize,
    _slot: DescriptorSlot,
}

impl Pipe {
    /// An empty pipe. `None`: too few descriptors are left, or the kernel grants no more; the flow copies instead.
    pub(super) fn take(limits: &Arc<Limits>) -> Option<Pipe> {
        POOL.with_borrow_mut(Vec::pop).or_else(|| Pipe::open(limits))
    }

    fn open(limits: &Arc<Limits>) -> Option<Pipe> {
        let slot = limits.pipe()?;
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        let capacity = fcntl_setpipe_size(&write, CAPACITY).ok()?;
        Some(Pipe { read, write, capacity, _slot: slot })
    }

    /// Keeps an empty pipe for the next transfer.
    pub(super) fn give_back(self) {
        POOL.with_borrow_mut(|pool| {
            if pool.len() < KEPT {
                pool.push(self);
            }
        });
    }
}

/// Moves what the socket holds into an empty pipe. Zero: end of stream.
pub(super) fn splice_in(source: &TcpStream, pipe: &Pipe, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    loop {
        ready!(source.poll_read_ready(cx))?;
        let moving = || Ok(splice(source, None, &pipe.write, None, pipe.capacity, flags())?);
        match source.try_io(Interest::READABLE, moving) {
            Err(error) if retry(&error) => {}
            outcome => return Poll::Ready(outcome),
        }
    }
}

/// Moves at most `filled` bytes, all that the pipe holds, into the socket.
pub(super) fn splice_out(
    pipe: &Pipe,
    filled: usize,
    sink: &TcpStream,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(sink.poll_write_ready(cx))?;
        let moving = || Ok(splice(&pipe.read, None, sink, None, filled, flags())?);
        match sink.try_io(Interest::WRITABLE, moving) {
            // The pipe is known to hold bytes.
            Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Err(error) if retry(&error) => {}
            outcome => return Poll::Ready(outcome),
        }
    }
}

fn flags() -> SpliceFlags {
    SpliceFlags::MOVE | SpliceFlags::NONBLOCK
}

/// No readiness after all (which the reactor now knows), or a signal.
fn retry(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Empty pipes that this thread keeps.
#[cfg(test)]
pub(super) fn kept() -> usize {
    POOL.with_borrow(Vec::len)
}
