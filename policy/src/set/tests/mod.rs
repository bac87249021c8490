//! Verdicts over small sets, written as the precedence text reads.

mod agreement;
mod build;
mod inbound;
mod precedence;
mod requests;
