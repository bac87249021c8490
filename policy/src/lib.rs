//! The decision, pure: documents -> compiled set -> [`PolicySet::decide`] -> [`Decision`].
//!
//! No I/O, no clock, no async runtime, no logging. Time, where it matters, is an argument.
#![forbid(unsafe_code)]

pub mod address;
pub mod date;
pub mod decision;
pub mod demands;
pub mod deny_table;
pub mod diagnostic;
pub mod diff;
pub mod document;
pub mod explain;
pub mod host;
pub mod path;
pub mod reason;
#[cfg(any(test, feature = "reference"))]
pub mod reference;
pub mod request;
pub mod set;
pub mod spiffe;
pub mod suggest;

pub use date::Date;
pub use decision::{Decision, NameDecision, NearMiss, Predicate, Treatment, Verdict};
pub use demands::Demands;
pub use diagnostic::{Diagnostic, Source};
pub use document::Document;
pub use explain::Explanation;
pub use host::{HostName, HostNameError, HostPattern};
pub use path::{CanonicalPath, PathPattern};
pub use reason::Reason;
pub use request::{Arrival, Direction, HostEvidence, Observed, Request, Upgrade};
pub use set::{CompileOptions, Generation, Peek, PolicySet, RuleFacts, RuleId};
pub use spiffe::{SpiffeId, SpiffePattern, TrustDomain};
pub use suggest::{Proposal, Proposals, suggest_rule};
