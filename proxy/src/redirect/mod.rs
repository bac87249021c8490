//! The redirect rules: what the kernel sends to the proxy, and what it refuses at once.
