//! The connection's story, one file a stage.

pub mod classify;
