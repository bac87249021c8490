//! System calls that no safe crate covers. The only place for `unsafe`.

pub mod namespace;
pub mod seccomp;
pub mod signals;

use std::{io, os::fd::OwnedFd};

use tokio::io::unix::AsyncFd;

/// Waits for readiness of a descriptor in the current event loop.
///
/// # Errors
/// The event loop refuses the descriptor.
///
/// # Panics
/// There is no event loop.
pub fn async_fd(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open and names one file description for as long as the `AsyncFd` owns it.
    let registered = unsafe { AsyncFd::register(descriptor) };
    registered.map_err(io::Error::from)
}
