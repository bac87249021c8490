//! The data plane: capture, the connection pipeline, DNS.
#![deny(unsafe_code)]

pub mod access_log;
pub mod addrs;
mod back_off;
pub mod clock;
pub mod connection;
pub mod dns;
mod files;
pub mod http;
pub mod identity;
pub mod inspection;
pub mod limits;
pub mod mesh;
pub mod metrics;
pub mod origins;
pub mod peers;
pub mod policy_store;
pub mod reception;
pub mod redirect;
pub mod server;
pub mod settings;
pub mod sidecar;
#[allow(unsafe_code, reason = "the one place for system calls that no safe crate covers")]
pub mod sys;
pub mod tls;
