//! Addresses: canonical form, and the ranges that rules talk about.
