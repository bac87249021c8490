//! Recognising plaintext HTTP, and answering a denied client.

pub mod preface;
