//! Verdicts over small sets, written as the precedence text reads.

mod build;
mod precedence;
