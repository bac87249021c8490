//! The file that is followed.

use std::{fs, path::Path, sync::Arc};

use sidegate_certs::UnixTime;
use tempfile::TempDir;

use super::{Follower, load};
use crate::{connection::world, server::Gate};

fn gate() -> Arc<Gate> {
    world::idle_gate("apiVersion: sidegate.dev/v1\nkind: Policy\nmetadata: { name: p }\nspec: {}\n")
}

fn table(name: &str, address: &str) -> String {
    format!(
        "apiVersion: sidegate.dev/v1\nkind: Peers\npeers:\n  - {{ id: spiffe://example.org/{name}, addresses: [ {address} ] }}\n"
    )
}

fn put(folder: &TempDir, text: &str) {
    fs::write(folder.path().join(".next"), text).unwrap();
    fs::rename(folder.path().join(".next"), folder.path().join("peers.yaml")).unwrap();
}

fn who(gate: &Gate) -> Option<String> {
    let peers = gate.policies.peers();
    Some(peers.at("10.0.0.7".parse().unwrap())?.id.as_str().to_owned())
}

#[tokio::test]
async fn a_good_file_is_taken_over_and_a_bad_one_leaves_what_was() {
    let (folder, gate) = (tempfile::tempdir().unwrap(), gate());
    let now = UnixTime::now();
    let mut follower = Follower::new(folder.path().join("peers.yaml"), Arc::clone(&gate));
    let told = follower.told();
    follower.look(now);
    assert!(told.wanting().is_some(), "it is not there");
    assert_eq!(told.tell(&gate.policies.peers())["refused"]["diagnostics"][0]["message"], "it is not there");
    put(&folder, &table("a", "10.0.0.7"));
    follower.look(now);
    assert_eq!((who(&gate).as_deref(), told.wanting()), (Some("spiffe://example.org/a"), None));
    for bad in ["", "kind: Peers", &table("b", "127.0.0.1"), &table("b", "10.0.0.7, 10.0.0.7")] {
        put(&folder, bad);
        // A fault is told when two looks in a row find it.
        follower.look(now);
        follower.look(now);
        assert_eq!((who(&gate).as_deref(), told.wanting()), (Some("spiffe://example.org/a"), None), "{bad}");
        let answer = told.tell(&gate.policies.peers());
        assert!(!answer["refused"]["diagnostics"].as_array().unwrap().is_empty(), "{answer}");
    }
    fs::remove_file(folder.path().join("peers.yaml")).unwrap();
    follower.look(now);
    follower.look(now);
    assert!(who(&gate).is_some(), "a file that vanishes is no empty table");
    put(&folder, &table("b", "10.0.0.7"));
    follower.look(now);
    assert_eq!(who(&gate).as_deref(), Some("spiffe://example.org/b"));
    assert!(told.tell(&gate.policies.peers())["refused"].is_null());
}

#[tokio::test]
async fn who_judges_is_told_of_a_new_table_and_not_of_the_same_one() {
    let (folder, gate) = (tempfile::tempdir().unwrap(), gate());
    let mut news = gate.policies.subscribe();
    let mut follower = Follower::new(folder.path().join("peers.yaml"), Arc::clone(&gate));
    put(&folder, &table("a", "10.0.0.7"));
    follower.look(UnixTime::now());
    assert!(news.has_changed().unwrap());
    news.mark_unchanged();
    put(&folder, &(table("a", "10.0.0.7") + "# the same\n"));
    follower.look(UnixTime::now());
    assert!(!news.has_changed().unwrap());
}

#[test]
fn what_can_not_be_read_is_told_with_its_file() {
    let refused = load(Path::new("/dev/null")).unwrap_err();
    let [one] = refused.diagnostics.as_slice() else { panic!("{refused:?}") };
    assert!(one.file.ends_with("/dev/null") && !one.fix.is_empty() && !refused.absent);
    assert!(load(Path::new("/nowhere/peers.yaml")).unwrap_err().absent);
}
