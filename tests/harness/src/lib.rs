//! Network namespaces for tests, without root.
//!
//! A test binary with `harness = false` calls [`main`], which moves the whole process into a user namespace of its own
//! while it still has one thread. From then on every case may make network namespaces: each runs in a fresh one, with a
//! second one beside it that plays the world and sees every frame that leaves. Where user namespaces are not allowed the
//! cases fail; they never skip.
#![forbid(unsafe_code)]
#![allow(clippy::panic, reason = "tests fail by panicking")]

pub mod netns;
pub mod runner;
pub mod wait;
pub mod world;

pub use netns::Netns;
pub use runner::{Case, main, main_as_root};
pub use wait::until;
pub use world::{Frame, World};
