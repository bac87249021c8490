//! Both ends over loopback.

mod flow;
mod identity;
mod istio;
mod lifecycle;
mod refusals;
mod roster;
pub(crate) mod world;
