//! What is done with connections towards the workload: who receives them, and which rules bind nobody: all of them where
//! nothing is captured, and those for datagrams, which never are.

use std::{io, sync::Arc};

use super::{
    StartError,
    config::{Config, Listen},
    status::DocumentSummary,
    system,
};
use crate::{
    mesh::Membership,
    reception::{CertificatesFollower, Reception, ReceptionSetup},
    redirect::links,
};

/// How those who connect from outside are received, where they are captured.
pub(super) fn reception(
    config: &Config,
    membership: Option<&Membership>,
    certificates: &CertificatesFollower,
) -> Result<Option<Reception>, StartError> {
    if !config.inbound.capture {
        return Ok(None);
    }
    let (identity, trust, roster) = match membership {
        Some(Membership { identities, roster, time: _ }) => {
            (Arc::clone(&identities.identity), Arc::clone(&identities.trust), Arc::clone(roster))
        }
        None => Default::default(),
    };
    let setup = ReceptionSetup {
        identity,
        trust,
        given: certificates.cells(),
        roster,
        local: links::remembered_addresses(),
        own_ports: own_ports(&config.listen).to_vec(),
        patience: config.settings.classify_timeout,
    };
    let made = Reception::new(setup).map_err(|error| io::Error::other(error.to_string()));
    made.map(Some).map_err(system("TLS towards clients"))
}

/// Every port of the proxy itself.
pub(super) fn own_ports(listen: &Listen) -> [u16; 6] {
    let (ready, metrics) = (listen.ready.port(), listen.metrics.port());
    [listen.outbound, listen.inbound, listen.mesh, listen.dns, ready, metrics]
}

/// Ingress rules of the policies that apply and are not enforced.
pub const UNENFORCED: &str = "sidegate_ingress_rules_not_enforced";

/// One line about the ingress rules that apply to this workload and bind nobody; `None` where there are none.
pub(super) fn warning(documents: &[DocumentSummary], captured: bool) -> Option<String> {
    let number = rules(documents, captured);
    let policies = names(documents, captured);
    let (rules, are) = if number == 1 { ("rule", "is") } else { ("rules", "are") };
    let word = if policies.len() == 1 { "policy" } else { "policies" };
    let why = if captured {
        "datagrams that arrive are not captured, and whoever sends them is not judged; close those ports by other means"
    } else {
        "`inbound.capture` is off, and whoever reaches the workload's ports is not judged; turn it on, or close them by \
         other means"
    };
    (number > 0).then(|| {
        format!("{number} ingress {rules} of {word} {} {are} NOT enforced: {why}", policies.join(", "))
    })
}

/// Says it in the log and in the metrics. To be called for every generation.
pub(super) fn tell(documents: &[DocumentSummary], captured: bool) {
    metrics::describe_gauge!(
        UNENFORCED,
        "Ingress rules of the policies that apply and are not enforced: those for datagrams, and without capture all."
    );
    let number = rules(documents, captured);
    metrics::gauge!(UNENFORCED).set(number as f64);
    if let Some(warning) = warning(documents, captured) {
        tracing::warn!(rules = number, policies = names(documents, captured).len(), "{warning}");
    }
}

fn rules(documents: &[DocumentSummary], captured: bool) -> usize {
    documents.iter().map(|document| of_one(document, captured)).sum()
}

fn of_one(document: &DocumentSummary, captured: bool) -> usize {
    match (document.applies, captured) {
        (false, _) => 0,
        (true, true) => document.ingress_datagrams,
        (true, false) => document.ingress,
    }
}

fn names(documents: &[DocumentSummary], captured: bool) -> Vec<String> {
    let ruled = documents.iter().filter(|document| of_one(document, captured) > 0);
    ruled.map(|document| format!("`{}`", document.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(name: &str, ingress: usize, applies: bool) -> DocumentSummary {
        DocumentSummary {
            name: name.to_owned(),
            file: "p.yaml".to_owned(),
            egress: 1,
            ingress,
            ingress_datagrams: usize::from(ingress > 1),
            audit: false,
            applies,
        }
    }

    #[test]
    fn ingress_rules_that_apply_are_counted_and_named() {
        let others = [document("a", 0, true), document("b", 5, false)];
        assert_eq!(warning(&others, false), None);
        let one = warning(&[document("a", 1, true)], false).expect("a warning");
        assert!(one.starts_with("1 ingress rule of policy `a` is NOT enforced: "), "{one}");
        let three = [document("a", 1, true), document("b", 5, false), document("c", 2, true)];
        assert!(
            warning(&three, true)
                .expect("a warning")
                .starts_with("1 ingress rule of policy `c` is NOT enforced: datagrams")
        );
        assert_eq!(warning(&three[..1], true), None, "enforced");
        let three = warning(&three, false).expect("a warning");
        assert!(three.starts_with("3 ingress rules of policies `a`, `c` are NOT enforced: "), "{three}");
    }
}
