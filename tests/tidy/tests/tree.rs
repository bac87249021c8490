//! Every rule over the real tree.

use std::path::Path;

use sidegate_tidy::{RULES, Tree};

#[test]
fn the_tree_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let tree = Tree::read(&root).expect("the repository is readable");
    assert!(tree.file("Cargo.toml").is_some(), "this is not the repository's root");
    let mut report = String::new();
    for (rule, check) in RULES {
        let wrong = check(&tree);
        if !wrong.is_empty() {
            report += &format!("\n{rule}:\n  {}", wrong.join("\n  "));
        }
    }
    assert!(report.is_empty(), "{report}\n");
}
