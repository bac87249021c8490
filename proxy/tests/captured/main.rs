//! The sidecar with real redirect rules, in network namespaces without root.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

#[path = "../serve/harness.rs"]
#[allow(dead_code, reason = "shared with the tests that need no namespaces")]
mod harness;

use std::{
    io::Read,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    process::ExitCode,
};

use harness::{PATIENCE, Place, Sidecar, config, policy, run};
use rustix::process::Signal;
use sidegate_harness::{Case, World, netns::nft, world};

const TARGET_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const TARGET_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);

const CASES: &[Case] = &[
    Case { name: "kept_rules_capture_and_outlive_the_proxy", run: kept_rules_capture_and_outlive_the_proxy },
    Case { name: "expected_rules_that_are_absent_are_told", run: expected_rules_that_are_absent_are_told },
    Case { name: "datagrams_follow_the_policy", run: datagrams_follow_the_policy },
];

fn main() -> ExitCode {
    sidegate_harness::main(CASES)
}

fn place(rules: &str) -> Place {
    let place = Place::new(&config("p.yaml").replace("rules: none", &format!("rules: {rules}")));
    place.write("p.yaml", &policy("first", "db.example.com"));
    place
}

fn kept_rules_capture_and_outlive_the_proxy() {
    let mut world = World::new();
    let place = place("keep");
    place.write("p.yaml", &(policy("first", "db.example.com") + &datagrams(world::FENCE_PORT)));
    let mut sidecar = Sidecar::start(&place);
    for target in [SocketAddr::from((TARGET_V4, 443)), (TARGET_V6, 443).into()] {
        let mut stream = TcpStream::connect(target).unwrap();
        let _ = stream.read(&mut [0; 16]);
        let record = sidecar.record();
        assert_eq!(record["originalDst"], target.to_string());
        assert_eq!((&record["verdict"], &record["reason"]), (&"denied".into(), &"no-rule".into()));
    }
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.ended(), Some(0));
    for target in [SocketAddr::from((TARGET_V4, 443)), (TARGET_V6, 443).into()] {
        assert!(TcpStream::connect_timeout(&target, PATIENCE).is_err());
    }
    assert_eq!(world.frames(), [], "nothing left");
}

fn expected_rules_that_are_absent_are_told() {
    let _world = World::new();
    let place = place("expect");
    let missing = "not ready: the redirect rules are not in place";
    let bare = Sidecar::start_and(&place, |log| log.iter().any(|line| said(line, missing)));
    drop(bare);
    assert_eq!(run(&["init"]).status.code(), Some(0));
    Sidecar::start_and(&place, |log| log.iter().any(|line| said(line, "the redirect rules are in place")));
}

fn datagrams_follow_the_policy() {
    let _world = World::new();
    let place = place("keep");
    let sidecar = Sidecar::start(&place);
    assert!(!nft("list table inet sidegate").contains("10.77.0.1"));
    place.write("p.yaml", &(policy("first", "db.example.com") + &datagrams(123)));
    sidecar.logged("new policies judge from now on");
    assert!(nft("list table inet sidegate").contains("10.77.0.1"));
    place.write("p.yaml", &policy("first", "db.example.com"));
    sidecar.logged("new policies judge from now on");
    assert!(!nft("list table inet sidegate").contains("10.77.0.1"));
}

/// A rule that lets datagrams to the world's port out.
fn datagrams(port: u16) -> String {
    format!(
        "    - name: datagrams
      reason: \"no TLS in datagrams\"
      to: [ {{ cidrs: [ 10.77.0.1/32 ] }} ]
      ports: [ {port} ]
      protocol: udp
      tls: {{ mode: none }}
"
    )
}

fn said(line: &serde_json::Value, start: &str) -> bool {
    line["message"].as_str().is_some_and(|message| message.starts_with(start))
}
