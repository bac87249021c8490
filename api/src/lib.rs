//! The types that proxy, control plane and command line exchange. Nothing else.
#![forbid(unsafe_code)]

pub mod access_record;

pub use access_record::{AccessRecord, CloseReason};
