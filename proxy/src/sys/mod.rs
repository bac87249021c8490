//! System calls that no safe crate covers. The only place for `unsafe`.
