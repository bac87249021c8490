//! The redirect rules: what the kernel sends to the proxy, and what it refuses at once.

pub mod original_dst;

pub use original_dst::{NotRedirected, original_dst};
