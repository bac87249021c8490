//! Putting the rules into the kernel, changing the part that follows the policy, and taking them out again.

use std::io;

use sidegate_policy::set::UdpDestination;

use super::{
    Spec, links,
    netlink::{Netlink, Refused},
    plan::{self, Family, Plan, Set},
    snapshot::held,
};

/// Why the rules could not be put in place.
#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    /// The kernel wants a privilege that is absent.
    #[error(
        "{0}: CAP_NET_ADMIN in the workload's network namespace is missing; \
         run this in an init container with `capabilities: {{ add: [NET_ADMIN] }}`, or use `sidegate run`, which needs no privilege"
    )]
    NotPermitted(String),
    /// The kernel lacks what the rules need.
    #[error(
        "{0}: this kernel lacks it; Sidegate needs Linux 5.10 or later with nf_tables (inet), nft_redir, nft_reject, nft_fib, nft_ct"
    )]
    Unsupported(String),
    /// The kernel refused for another reason.
    #[error(transparent)]
    Refused(Refused),
    /// Talking to the kernel failed.
    #[error("listing the network devices")]
    Devices(#[source] io::Error),
    /// Reading the rules back, or being told of changes, failed.
    #[error("watching the rules")]
    Watch(#[source] io::Error),
}

impl From<Refused> for RedirectError {
    fn from(refused: Refused) -> Self {
        match refused.source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => RedirectError::NotPermitted(refused.purpose),
            Some(libc::ENOENT | libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT) => {
                RedirectError::Unsupported(refused.purpose)
            }
            _ => RedirectError::Refused(refused),
        }
    }
}

/// What was put in place.
#[derive(Debug)]
pub struct Installed {
    /// The rules as the kernel has them now.
    pub plan: Plan,
    /// The second wall: frames past the IP stack are dropped on every device.
    pub frames: FrameWall,
}

/// The state of the second wall.
#[derive(Debug)]
pub enum FrameWall {
    /// On these devices.
    Up(Vec<String>),
    /// No device leads out: nothing to guard.
    Unneeded,
    /// The kernel refused it (before Linux 5.16 there is none). A process with CAP_NET_RAW can send frames past the rules.
    Absent(Refused),
}

/// Puts every rule in place in one transaction, instead of whatever tables of ours there are.
///
/// The second wall comes in the same transaction where the kernel takes it, else without it.
///
/// # Errors
/// Nothing was changed.
pub fn install(netlink: &mut Netlink, spec: &Spec) -> Result<Installed, RedirectError> {
    install_on(netlink, spec, links::outward().map_err(RedirectError::Devices)?)
}

/// As [`install`], where the devices are known.
pub(super) fn install_on(
    netlink: &mut Netlink,
    spec: &Spec,
    devices: Vec<String>,
) -> Result<Installed, RedirectError> {
    let plan = Plan::new(spec, &devices);
    if plan.netdev.is_none() {
        netlink.transact(plan::encode_tables(plan.tables()))?;
        return Ok(Installed { plan, frames: FrameWall::Unneeded });
    }
    match netlink.transact(plan::encode_tables(plan.tables())) {
        Ok(()) => Ok(Installed { plan, frames: FrameWall::Up(devices) }),
        Err(refused) => {
            let plan = plan.first_wall_only();
            netlink.transact(plan::encode_tables(plan.tables()))?;
            Ok(Installed { plan, frames: FrameWall::Absent(refused) })
        }
    }
}

/// Replaces the allowed datagram destinations in one transaction.
///
/// # Errors
/// Nothing was changed: the destinations of the policy before still hold, so the caller must treat this as a failure
/// to apply the new one.
pub fn replace_udp(netlink: &mut Netlink, udp: &[UdpDestination]) -> Result<(), RedirectError> {
    let spec = Spec { udp: udp.to_vec(), ..Spec::run() };
    Ok(change_sets(netlink, Plan::new(&spec, &[]).udp_sets())?)
}

/// Brings sets to these elements. What is allowed before and after is allowed all the while.
pub(super) fn change_sets(netlink: &mut Netlink, sets: Vec<Set>) -> Result<(), Refused> {
    let mut pairs = Vec::with_capacity(sets.len());
    for set in &sets {
        match held(netlink, set.name()) {
            Ok(elements) => pairs.push((set.clone(), elements)),
            Err(source) => return Err(Refused { purpose: format!("reading set `{}`", set.name()), source }),
        }
    }
    let changed = plan::encode_changes(&pairs).map_or(Ok(()), |changes| netlink.transact(changes));
    // Somebody else changed them since they were read: replace them whole.
    changed.or_else(|_| netlink.transact(plan::encode_elements(&sets)))
}

/// Removes every rule of ours; it is no error if there is none.
pub fn remove(netlink: &mut Netlink) -> Result<(), RedirectError> {
    // The netdev family may be absent from the kernel, and then so is the table.
    match netlink.transact(plan::encode_removal(&[Family::Inet, Family::Netdev])) {
        Ok(()) => Ok(()),
        Err(_) => Ok(netlink.transact(plan::encode_removal(&[Family::Inet]))?),
    }
}
