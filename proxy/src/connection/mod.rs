//! The connection's story, one file a stage.
