//! Fuzz targets: each is a plain function from bytes that panics when a promise is broken. The same functions serve
//! the coverage-guided binaries (`fuzz_targets/`) and the bounded runner that needs nothing but a stable toolchain.
#![forbid(unsafe_code)]

pub mod mutate;
mod targets;

pub use targets::{
    dns::{dns_answer, dns_question, resolv_conf},
    http::{http_denial, http_framing, http_preface},
    policy::{
        access_record, date, deny_table, host_name, host_pattern, path_pattern, policy_cases,
        policy_document, spiffe_id, spiffe_pattern, url_path,
    },
    tls::{classify, client_hello, second_hello, server_gate},
};

/// Takes any bytes; panics when a promise is broken.
pub type Target = fn(&[u8]);

/// Every target by name. Seeds stand in `seeds/NAME/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("access_record", access_record),
    ("classify", classify),
    ("client_hello", client_hello),
    ("date", date),
    ("deny_table", deny_table),
    ("dns_answer", dns_answer),
    ("dns_question", dns_question),
    ("host_name", host_name),
    ("host_pattern", host_pattern),
    ("http_denial", http_denial),
    ("http_framing", http_framing),
    ("http_preface", http_preface),

    ("path_pattern", path_pattern),
    ("policy_cases", policy_cases),
    ("policy_document", policy_document),
    ("resolv_conf", resolv_conf),
    ("second_hello", second_hello),
    ("server_gate", server_gate),
    ("spiffe_id", spiffe_id),
    ("spiffe_pattern", spiffe_pattern),
    ("url_path", url_path),
];
