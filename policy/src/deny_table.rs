//! The fixed deny table: destinations that no ordinary rule opens, and the grants that do.

use std::net::IpAddr;

use crate::Reason;

/// Judges an original destination before any rule. `None`: the table has nothing against it.
///
/// Private ranges are fine here (an address rule may name them); see [`denied_answer`] for names.
pub fn denied_destination(address: IpAddr) -> Option<Reason> {
    let _ = address;
    todo!()
}

/// Judges an address that a name resolved to. Stricter: also private, CGNAT, ULA and embedded-IPv4 forms, unless
/// `private` (which opens private, ULA and CGNAT only).
pub fn denied_answer(address: IpAddr, private: bool) -> Option<Reason> {
    let _ = (address, private);
    todo!()
}

/// A named opening in the fixed table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Grant {
    /// EC2 instance metadata.
    Ec2Imds,
    /// ECS task credentials and metadata.
    EcsTask,
    /// EKS Pod Identity agent.
    EksPodIdentity,
    /// Amazon time service (UDP 123).
    Time,
}
