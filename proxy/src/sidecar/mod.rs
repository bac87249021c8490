//! `sidegate-proxy serve`: configuration, reload, readiness, metrics, admin.
