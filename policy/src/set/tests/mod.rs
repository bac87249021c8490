//! Verdicts over small sets, written as the precedence text reads.

mod agreement;
mod build;
mod precedence;
mod requests;
