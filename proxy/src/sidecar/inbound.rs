//! Rules that are read and checked, and that nothing enforces: this build captures no inbound connection.

use super::status::DocumentSummary;

/// Ingress rules of the policies that apply; none of them is enforced.
pub const UNENFORCED: &str = "sidegate_ingress_rules_not_enforced";

/// One line about the ingress rules that apply to this workload; `None` where there are none.
pub(super) fn warning(documents: &[DocumentSummary]) -> Option<String> {
    let number = rules(documents);
    let policies = names(documents);
    let (rules, are) = if number == 1 { ("rule", "is") } else { ("rules", "are") };
    let word = if policies.len() == 1 { "policy" } else { "policies" };
    (number > 0).then(|| {
        format!(
            "{number} ingress {rules} of {word} {} {are} NOT enforced: this build captures no inbound connections, and \
             whoever reaches the workload's ports is not judged; close them by other means",
            policies.join(", ")
        )
    })
}

/// Says it in the log and in the metrics. To be called for every generation.
pub(super) fn tell(documents: &[DocumentSummary]) {
    metrics::describe_gauge!(
        UNENFORCED,
        "Ingress rules of the policies that apply; none of them is enforced."
    );
    metrics::gauge!(UNENFORCED).set(rules(documents) as f64);
    if let Some(warning) = warning(documents) {
        tracing::warn!(rules = rules(documents), policies = names(documents).len(), "{warning}");
    }
}

fn rules(documents: &[DocumentSummary]) -> usize {
    documents.iter().filter(|document| document.applies).map(|document| document.ingress).sum()
}

fn names(documents: &[DocumentSummary]) -> Vec<String> {
    let ruled = documents.iter().filter(|document| document.applies && document.ingress > 0);
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
            audit: false,
            applies,
        }
    }

    #[test]
    fn ingress_rules_that_apply_are_counted_and_named() {
        let others = [document("a", 0, true), document("b", 5, false)];
        assert_eq!(warning(&others), None);
        let one = warning(&[document("a", 1, true)]).expect("a warning");
        assert!(one.starts_with("1 ingress rule of policy `a` is NOT enforced: "), "{one}");
        let three = [document("a", 1, true), document("b", 5, false), document("c", 2, true)];
        let three = warning(&three).expect("a warning");
        assert!(three.starts_with("3 ingress rules of policies `a`, `c` are NOT enforced: "), "{three}");
    }
}
