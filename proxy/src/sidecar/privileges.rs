//! What the process may do, and how it comes to be able to do less.
//!
//! The order at the start is: confine, bind, narrow to `CAP_NET_ADMIN`, start the one thread that keeps it, drop it,
//! start every other thread. A thread inherits its capabilities from the one that starts it (capabilities(7)).

use std::io;

use rustix::{
    process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit},
    thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs},
};

/// For every thread, for good: nothing executed gains privileges, no other process of the same user may trace this one
/// or open its descriptors, and a crash writes no memory to disk. Needs no privilege.
///
/// # Errors
/// The kernel refuses a step; the process must not go on.
pub(super) fn confine() -> io::Result<()> {
    set_no_new_privs(true)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(())
}

/// Leaves the calling thread `CAP_NET_ADMIN` alone, effective, where it was granted. `false`: it was not, and the thread
/// has no capability.
///
/// # Errors
/// The kernel refuses; the process must not go on.
pub(super) fn narrow() -> io::Result<bool> {
    let granted = capabilities(None)?.permitted & CapabilitySet::NET_ADMIN;
    hold(granted)?;
    Ok(!granted.is_empty())
}

/// Takes every capability from the calling thread, for good.
///
/// # Errors
/// The kernel refuses; the process must not go on.
pub(super) fn renounce() -> io::Result<()> {
    hold(CapabilitySet::empty())
}

/// The inheritable set, and with it the ambient one, is always empty: nothing is passed on by executing.
fn hold(held: CapabilitySet) -> io::Result<()> {
    let sets = CapabilitySets { effective: held, permitted: held, inheritable: CapabilitySet::empty() };
    Ok(set_capabilities(None, sets)?)
}
