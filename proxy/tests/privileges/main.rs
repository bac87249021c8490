//! The real `sidegate-proxy serve` as the exempt user, with `CAP_NET_ADMIN` and without. Needs root, to become that user.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

#[path = "../serve/harness.rs"]
#[allow(dead_code, reason = "shared with the tests that need no namespaces")]
mod harness;

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use harness::{PATIENCE, Place, Sidecar, config, policy};
use rustix::process::Signal;
use serde_json::Value;
use sidegate_harness::{
    Case, World,
    netns::{ip, nft},
    until,
    world::{FENCE_PORT, WORLD_V4},
};
use sidegate_proxy::redirect::{Netlink, PROXY_UID, Spec, install};

const CASES: &[Case] = &[
    Case { name: "one_thread_keeps_one_capability", run: one_thread_keeps_one_capability },
    Case { name: "series_are_there_from_the_start_as_documented", run: series_are_there_from_the_start },
    Case { name: "the_docs_name_every_closed_port", run: the_docs_name_every_closed_port },
    Case { name: "a_refused_datagram_is_recorded", run: a_refused_datagram_is_recorded },
    Case { name: "a_flood_of_refused_datagrams_is_counted", run: a_flood_of_refused_datagrams_is_counted },
    Case { name: "flushed_rules_come_back_within_a_second", run: flushed_rules_come_back_within_a_second },
    Case {
        name: "expected_rules_are_kept_as_init_made_them",
        run: expected_rules_are_kept_as_init_made_them,
    },
    Case {
        name: "without_rules_it_is_not_ready_until_init_ran",
        run: without_rules_it_is_not_ready_until_init_ran,
    },
    Case {
        name: "rules_that_can_not_be_put_back_end_readiness",
        run: rules_that_can_not_be_put_back_end_readiness,
    },
    Case { name: "datagram_rules_follow_the_policy", run: datagram_rules_follow_the_policy },
    Case { name: "a_live_connection_is_listed_and_outlasts_the_drain", run: a_live_connection_is_listed },
    Case {
        name: "own_ports_are_closed_on_every_local_address",
        run: own_ports_are_closed_on_every_local_address,
    },
    Case { name: "without_the_capability_one_line_says_so", run: without_the_capability_one_line_says_so },
    Case { name: "the_example_of_the_docs_works_as_pasted", run: the_example_of_the_docs_works_as_pasted },
    Case { name: "rules_can_not_be_kept_without_it", run: rules_can_not_be_kept_without_it },
    Case {
        name: "an_access_log_of_another_user_is_explained",
        run: an_access_log_of_another_user_is_explained,
    },
    Case {
        name: "an_admin_socket_never_stands_in_the_next_ones_way",
        run: an_admin_socket_never_stands_in_the_next_ones_way,
    },
    Case {
        name: "a_health_check_by_another_user_is_explained",
        run: a_health_check_by_another_user_is_explained,
    },
];

/// An address of the world that no rule allows, and a port of it.
const TARGET: (&str, u16) = ("198.51.100.7", 443);
/// Bit 12 of a capability mask: `CAP_NET_ADMIN`.
const NET_ADMIN: &str = "0000000000001000";
const NONE: &str = "0000000000000000";

fn main() -> ExitCode {
    sidegate_harness::main_as_root(CASES)
}

/// A folder of the proxy's user.
fn place(rules: &str, policy: &str) -> Place {
    let place = Place::new(&config("p.yaml").replace("rules: none", &format!("rules: {rules}")));
    place.write("p.yaml", policy);
    let folder = place.path("");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    chown(&folder, Some(PROXY_UID), Some(PROXY_UID)).unwrap();
    place
}

/// Executes the proxy as the exempt user, with no capability but these words of setpriv(1).
fn as_proxy(capabilities: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    let user = [format!("--reuid={PROXY_UID}"), format!("--regid={PROXY_UID}"), "--clear-groups".to_owned()];
    command.args(user).args(capabilities).arg(env!("CARGO_BIN_EXE_sidegate-proxy"));
    command
}

const GRANTED: [&str; 2] = ["--inh-caps=+net_admin", "--ambient-caps=+net_admin"];

fn granted(place: &Place) -> Sidecar {
    Sidecar::start_by(place, as_proxy(&GRANTED), |before| {
        before.iter().all(|line| line["level"] != "WARN" && line["level"] != "ERROR")
    })
}

/// A policy that lets datagrams to these ports of the world out.
fn datagrams(ports: &str) -> String {
    let rule = format!(
        "    - name: datagrams\n      reason: \"the test\"\n      to: [ {{ cidrs: [ 10.77.0.1/32, 198.51.100.7/32 ] }} ]\n      \
         ports: [ {ports} ]\n      protocol: udp\n      tls: {{ mode: none }}\n"
    );
    policy("first", "db.example.com") + &rule
}

fn leaves() -> bool {
    UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"canary", TARGET).is_ok()
}

fn init() {
    install(&mut Netlink::netfilter().unwrap(), &Spec::sidecar(PROXY_UID)).unwrap();
}

/// The fields of each thread's status, by the thread's name.
fn threads(id: u32) -> Vec<(String, String)> {
    let tasks = fs::read_dir(format!("/proc/{id}/task")).unwrap();
    let read = |task: fs::DirEntry| {
        let text = |file| fs::read_to_string(task.path().join(file)).unwrap();
        (text("comm").trim().to_owned(), text("status"))
    };
    tasks.map(|task| read(task.unwrap())).collect()
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap()
}

fn one_thread_keeps_one_capability() {
    let place = place("keep", &policy("first", "db.example.com"));
    let sidecar = granted(&place);
    // A thread names itself when it first runs.
    until(PATIENCE, "every thread has its name", || {
        let threads = threads(sidecar.id());
        ["worker-0", "access-log", "refusals", "redirect-watch"]
            .iter()
            .all(|name| threads.iter().any(|(found, _)| found == name))
    });
    for (name, status) in &threads(sidecar.id()) {
        let held = if name == "redirect-watch" { NET_ADMIN } else { NONE };
        assert_eq!((field(status, "CapPrm:"), field(status, "CapEff:")), (held, held), "{name}");
        assert_eq!((field(status, "CapInh:"), field(status, "CapAmb:")), (NONE, NONE), "{name}");
        assert_eq!(field(status, "NoNewPrivs:"), "1", "{name}");
        assert_eq!(field(status, "Uid:").split('\t').next(), Some("1337"), "{name}");
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", sidecar.id())).unwrap();
    let core: Vec<&str> = field(&limits, "Max core file size").split_whitespace().collect();
    assert_eq!(core[..2], ["0", "0"]);
    // The memory of a process that can't be dumped belongs to root: no other process of its user reads it.
    assert_eq!(fs::metadata(format!("/proc/{}/mem", sidecar.id())).unwrap().uid(), 0);
}

fn a_refused_datagram_is_recorded() {
    let _world = World::new();
    let place = place("keep", &policy("first", "db.example.com"));
    let sidecar = granted(&place);
    assert!(!leaves(), "refused at once");
    let record = sidecar.record();
    assert_eq!(
        (&record["verdict"], &record["reason"], &record["protocol"]),
        (&Value::from("denied"), &Value::from("udp-refused"), &Value::from("udp"))
    );
    assert_eq!(record["originalDst"], format!("{}:{}", TARGET.0, TARGET.1));
}

/// More than the kernel tells one by one, and over rules that begin to count anew.
fn a_flood_of_refused_datagrams_is_counted() {
    const FLOOD: u64 = 500;
    let _world = World::new();
    let place = place("keep", &datagrams(&FENCE_PORT.to_string()));
    let sidecar = granted(&place);
    let sample = |series: &str| {
        let (_, text) = sidecar.ask("/metrics");
        text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse::<f64>().ok()).unwrap_or(0.0)
            as u64
    };
    let flood = || {
        for _ in 0..FLOOD {
            assert!(!leaves());
        }
    };
    let refused = || sample("sidegate_refused_packets_total ");
    flood();
    until(PATIENCE, "all are counted", || refused() >= FLOOD);
    let recorded = sample("sidegate_refusals_recorded_total ");
    assert!(recorded > 0 && recorded < FLOOD, "{recorded}");
    nft("flush ruleset");
    sidecar.logged("the redirect rules are in place again");
    flood();
    until(PATIENCE, "the new rules' count is added", || refused() >= 2 * FLOOD);
}

fn flushed_rules_come_back_within_a_second() {
    let mut world = World::new();
    assert!(leaves(), "the control: nothing else refuses it");
    let place = place("keep", &datagrams(&FENCE_PORT.to_string()));
    let sidecar = granted(&place);
    assert!(!leaves());
    nft("flush ruleset");
    until(Duration::from_secs(1), "the rules are back", || !leaves());
    sidecar.logged("the redirect rules were changed by somebody else");
    let took = sidecar.logged("the redirect rules are in place again")["took_ms"].as_f64().unwrap();
    assert!(took > 0.0 && took < 1000.0, "{took}");
    // The kernel activates new rules a moment before the elements of their interval sets: until then allowed datagrams
    // are refused too.
    until(Duration::from_secs(1), "allowed datagrams pass again", || {
        UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"fence 0;", (WORLD_V4, FENCE_PORT)).is_ok()
    });
    world.frames();
    assert!(!leaves());
    assert_eq!(world.frames(), []);
}

/// The ports that `init` and `serve` agree on when neither is told.
fn by_default(rules: &str) -> Place {
    let place = place(rules, &policy("first", "db.example.com"));
    let config = fs::read_to_string(place.path("proxy.yaml")).unwrap();
    place.write(
        "proxy.yaml",
        &config.replace(
            "outbound: 0, inbound: 0, mesh: 0, dns: 0",
            "outbound: 15001, inbound: 15006, mesh: 15008, dns: 15053",
        ),
    );
    place
}

/// A sample of a series without labels; 0 where there is none.
fn sample(sidecar: &Sidecar, series: &str) -> f64 {
    let (_, text) = sidecar.ask("/metrics");
    text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok()).unwrap_or(0.0)
}

fn health(sidecar: &Sidecar) -> (Option<i32>, String) {
    let asked = as_proxy(&[]).args(["healthcheck", "--address", &sidecar.ready]).output().unwrap();
    (asked.status.code(), String::from_utf8_lossy(&asked.stderr).into_owned())
}

fn series_are_there_from_the_start() {
    let place = place("keep", &policy("first", "db.example.com"));
    let sidecar = granted(&place);
    let docs = harness::repository("docs/metrics.md");
    assert!(
        docs.contains("`verdict`, `reason` or `close_reason` appear when they are first counted; all others are there from the start")
    );
    let rows: Vec<Vec<&str>> =
        docs.lines().filter(|line| line.starts_with("| `")).map(|row| row.split('|').collect()).collect();
    assert!(rows.len() > 15, "{rows:?}");
    // The count of refused packets follows the start line.
    let shown = |name: &str| sidecar.ask("/metrics").1.contains(&format!("# TYPE {name} "));
    until(PATIENCE, "refused packets are counted", || shown("sidegate_refused_packets_total"));
    for row in rows {
        let (name, labels) = (row[1].trim().trim_matches('`'), row[3]);
        let later = labels.contains("verdict")
            || labels.contains("reason")
            || row[4].contains("there once one was loaded");
        assert_eq!(shown(name), !later, "{name}");
    }
}

fn the_docs_name_every_closed_port() {
    let docs = harness::repository("docs/sidecar.md");
    let (_, rest) = docs.split_once("The rules close the proxy's ports (").unwrap();
    let (told, _) = rest.split_once(')').unwrap();
    let spec = Spec::sidecar(PROXY_UID);
    for port in spec.services.iter().chain([&spec.outbound, &spec.dns]) {
        assert!(told.contains(&port.to_string()), "{port} is not among {told}");
    }
}

fn expected_rules_are_kept_as_init_made_them() {
    let _world = World::new();
    for options in [&["init"][..], &["init", "--loopback-dns"]] {
        assert!(harness::run(options).status.success());
        let dial = || nft("list chain inet sidegate dial");
        let made = dial();
        let place = by_default("expect");
        let sidecar = granted(&place);
        assert_eq!(dial(), made, "{options:?}: taken over");
        assert!(sidecar.claim.contains("are judged"), "{}", sidecar.claim);
        assert_eq!(sample(&sidecar, "sidegate_redirect_restored_total "), 0.0);
        nft("flush ruleset");
        until(Duration::from_secs(1), "the rules are back", || !leaves());
        sidecar.logged("the redirect rules were changed by somebody else");
        sidecar.logged("the redirect rules are in place again");
        assert_eq!(dial(), made, "{options:?}: put back");
        assert_eq!(sample(&sidecar, "sidegate_redirect_restored_total "), 1.0);
        assert_eq!(sidecar.ask("/ready").0, 200);
        drop(sidecar);
        nft("flush ruleset");
    }
}

fn without_rules_it_is_not_ready_until_init_ran() {
    let _world = World::new();
    let place = by_default("expect");
    let sidecar = Sidecar::start_by(&place, as_proxy(&GRANTED), |before| {
        before.iter().any(|line| {
            let said = line["message"].as_str().unwrap_or_default();
            line["level"] == "ERROR" && said.starts_with("not ready: the redirect rules are not in place")
        })
    });
    assert!(leaves(), "the control: nothing is captured");
    assert!(!sidecar.claim.contains("are judged"), "{}", sidecar.claim);
    let (status, body) = sidecar.ask("/ready");
    assert!(status == 503 && body.contains("not in place") && body.contains("sidegate-proxy init"), "{body}");
    let (code, said) = health(&sidecar);
    assert!(code == Some(1) && said.contains("not in place"), "{code:?} {said}");
    // A change of somebody else's tables is not what it waits for.
    nft("add table inet stranger");
    assert!(harness::run(&["init"]).status.success());
    sidecar.logged("the redirect rules are in place and watched");
    assert_eq!((sidecar.ask("/ready").0, health(&sidecar).0), (200, Some(0)));
    nft("flush ruleset");
    sidecar.logged("the redirect rules are in place again");
    assert!(!leaves());
}

/// Somebody holds a table of our name that nobody else may touch (nft flag `owner`, Linux 5.12).
fn rules_that_can_not_be_put_back_end_readiness() {
    let _world = World::new();
    init();
    let place = by_default("expect");
    let sidecar = granted(&place);
    assert_eq!(sidecar.ask("/ready").0, 200);
    let mut holder =
        Command::new("nft").arg("-i").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut orders = holder.stdin.take().unwrap();
    writeln!(orders, "delete table inet sidegate; add table inet sidegate {{ flags owner; }}").unwrap();
    let lost = sidecar.logged("the redirect rules could not be put back");
    assert_eq!(lost["level"], "ERROR");
    let (status, body) = sidecar.ask("/ready");
    assert!(status == 503 && body.contains("not in place"), "{body}");
    assert_eq!(health(&sidecar).0, Some(1));
    assert!(sample(&sidecar, "sidegate_redirect_restore_failures_total ") >= 1.0);
    drop(orders);
    holder.wait().unwrap();
    sidecar.logged("the redirect rules are in place again");
    until(PATIENCE, "it is ready again", || sidecar.ask("/ready").0 == 200);
    assert!(!leaves());
}

/// Rules that `init` put in place: at the start, with a change, and with a start after a change that nobody followed.
fn datagram_rules_follow_the_policy() {
    let _world = World::new();
    init();
    let place = place("expect", &datagrams("443"));
    assert!(!leaves(), "the control: `init` allows no datagrams");
    let sidecar = granted(&place);
    assert!(leaves(), "from the start");
    place.write("p.yaml", &datagrams("444"));
    sidecar.logged("new policies judge from now on");
    assert!(!leaves());
    place.write("p.yaml", &datagrams("443"));
    sidecar.logged("new policies judge from now on");
    assert!(leaves());
    drop(sidecar);
    assert!(leaves(), "the control: a killed proxy takes nothing back");
    place.write("p.yaml", &policy("first", "db.example.com"));
    let _sidecar = granted(&place);
    assert!(!leaves(), "an earlier proxy's destinations do not outlive its policies");
}

/// A rule for the workload's own network opens neither the proxy's ports there nor, later, those of a new address.
fn own_ports_are_closed_on_every_local_address() {
    let _world = World::new();
    let own = policy("first", "db.example.com")
        .replace("hosts: [ db.example.com ]", "cidrs: [ 10.77.0.0/24 ]")
        .replace("5432", "\"1-65535\"");
    let place = place("keep", &own);
    let sidecar = granted(&place);
    let reason = |address: &str, port: u16| {
        let told = sidecar.ask_json(&format!("/explain?ip={address}&port={port}&protocol=tcp"));
        told["reason"].as_str().unwrap().to_owned()
    };
    assert_eq!(reason("10.77.0.2", sidecar.outbound), "address-own-listener");
    assert_eq!(reason("10.77.0.1", sidecar.outbound), "rule-allows", "the control");
    assert_eq!(reason("10.77.0.99", sidecar.outbound), "rule-allows", "the control");
    ip("address add 10.77.0.99/24 dev app0");
    sidecar.signal(Signal::HUP);
    sidecar.logged("new policies judge from now on");
    assert_eq!(reason("10.77.0.99", sidecar.outbound), "address-own-listener");
}

/// From the application to the world and back; then the drain, which waits for it and says so.
fn a_live_connection_is_listed() {
    let world = World::new();
    let listener = world.run(|| TcpListener::bind((TARGET.0, 9000)).unwrap());
    let place = place(
        "keep",
        &policy("first", "db.example.com")
            .replace("hosts: [ db.example.com ]", "cidrs: [ 198.51.100.7/32 ]")
            .replace("5432", "9000"),
    );
    let mut sidecar = granted(&place);
    let mut stream = dial((TARGET.0, 9000));
    let (mut far, _) = listener.accept().unwrap();
    let mut exchange = || {
        stream.write_all(b"ping").unwrap();
        far.read_exact(&mut [0; 4]).unwrap();
        far.write_all(b"pong").unwrap();
        stream.read_exact(&mut [0; 4]).unwrap();
    };
    exchange();
    let told = sidecar.ask_json("/connections");
    assert_eq!(told["count"], 1, "{told}");
    assert_eq!(told["connections"][0]["rule"], "server-first", "{told}");
    sidecar.signal(Signal::TERM);
    sidecar.logged("draining");
    let (status, body) = sidecar.ask("/ready");
    assert_eq!(status, 503);
    assert!(body.contains("draining"), "{body}");
    exchange();
    drop((stream, far));
    assert_eq!(sidecar.ended(), Some(0));
    let record = sidecar.record();
    assert_eq!((&record["verdict"], &record["bytesSent"]), (&"allowed".into(), &8.into()));
}

#[allow(clippy::disallowed_methods, reason = "plays the application")]
fn dial(to: (&str, u16)) -> TcpStream {
    TcpStream::connect(to).unwrap()
}

fn without_the_capability_one_line_says_so() {
    init();
    let place = place("expect", &policy("first", "db.example.com"));
    let sidecar = Sidecar::start_by(&place, as_proxy(&[]), |before| {
        let loud: Vec<_> =
            before.iter().filter(|line| line["level"] == "WARN" || line["level"] == "ERROR").collect();
        let said = loud.first().and_then(|line| line["message"].as_str()).unwrap_or_default();
        loud.len() == 1
            && [
                "CAP_NET_ADMIN is missing",
                "nobody keeps",
                "not checked",
                "`redirect.rules: expect`",
                "not recorded",
                "setcap",
            ]
            .iter()
            .all(|part| said.contains(part))
    });
    assert!(sidecar.claim.contains("not checked"), "{}", sidecar.claim);
    for (name, status) in threads(sidecar.id()) {
        assert_eq!(field(&status, "CapPrm:"), NONE, "{name}");
    }
    place.write("p.yaml", &datagrams("443"));
    let refused = sidecar.logged("policy refused: the kernel's rules for datagrams can't follow");
    assert_eq!(refused["code"], "datagram-rules");
}

fn rules_can_not_be_kept_without_it() {
    let place = place("keep", &policy("first", "db.example.com"));
    let refused = as_proxy(&[]).args(["serve", "--config", &place.config()]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("CAP_NET_ADMIN") && said.contains("keeping the redirect rules"), "{said}");
}

/// As when somebody starts the proxy by hand over the log of the one that runs as it should.
fn an_access_log_of_another_user_is_explained() {
    let place = place("none", &policy("first", "db.example.com"));
    let config = fs::read_to_string(place.path("proxy.yaml")).unwrap();
    place.write("proxy.yaml", &(config + "accessLog: logs/access.jsonl\n"));
    place.write("logs/access.jsonl", "");
    let said = || {
        let refused = as_proxy(&[]).args(["serve", "--config", &place.config()]).output().unwrap();
        assert_eq!(refused.status.code(), Some(1));
        String::from_utf8_lossy(&refused.stderr).into_owned()
    };
    assert!(said().contains("it belongs to uid 0, mode 0644, and the proxy runs as uid 1337"), "{}", said());
    fs::remove_file(place.path("logs/access.jsonl")).unwrap();
    assert!(said().contains("its folder belongs to uid 0"), "{}", said());
}

/// Root alone may write everywhere, and the proxy is not that root for long: what it leaves must not stop the next.
fn an_admin_socket_never_stands_in_the_next_ones_way() {
    let place = place("none", &policy("first", "db.example.com"));
    let config = fs::read_to_string(place.path("proxy.yaml")).unwrap();
    place.write("proxy.yaml", &config.replace("state: state\n", ""));
    let refused = |mut command: Command| {
        let refused = command.args(["serve", "--config", &place.config()]).output().unwrap();
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        String::from_utf8_lossy(&refused.stderr).into_owned()
    };
    let root = || Command::new(env!("CARGO_BIN_EXE_sidegate-proxy"));
    let said = refused(root());
    assert!(
        said.contains("its folder belongs to uid 1337, mode 0755, and the proxy runs as uid 0"),
        "{said}"
    );
    assert!(!place.path("admin.sock").exists());
    chown(place.path(""), Some(0), Some(0)).unwrap();
    fs::set_permissions(place.path(""), fs::Permissions::from_mode(0o777)).unwrap();
    for (ends, command) in [(true, root()), (true, as_proxy(&[])), (false, root())] {
        let mut sidecar = Sidecar::start_by(&place, command, |_| true);
        if ends {
            sidecar.signal(Signal::TERM);
            assert_eq!(sidecar.ended(), Some(0));
            assert!(!place.path("admin.sock").exists());
        }
    }
    let said = refused(as_proxy(&[]));
    let owner = "it belongs to uid 0, mode 0600, and the proxy runs as uid 1337";
    assert!(said.contains("admin.sock: ") && said.contains(owner), "a killed one's: {said}");
}

/// The rules close the proxy's ports to everybody else in the workload's network, root among them.
fn a_health_check_by_another_user_is_explained() {
    let place = place("keep", &policy("first", "db.example.com"));
    let sidecar = granted(&place);
    let address = sidecar.ready.as_str();
    let asked = as_proxy(&[]).args(["healthcheck", "--address", address]).output().unwrap();
    assert_eq!(asked.status.code(), Some(0), "the control: {asked:?}");
    let refused = harness::run(&["healthcheck", "--address", address]);
    assert_eq!(refused.status.code(), Some(3));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("uid 1337") && said.contains("this is uid 0"), "{said}");
}

/// What a reader pastes into a shell of namespaces of its own.
fn the_example_of_the_docs_works_as_pasted() {
    let docs = harness::repository("docs/sidecar.md");
    let shell = docs.lines().find(|line| line.trim_start().starts_with("sudo env PATH")).unwrap();
    let options = shell.split_once(" unshare ").unwrap().1.trim_end_matches(" bash").split(' ');
    let (_, rest) = docs.split_once("```bash\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    // A reader's shell lives on; this one ends, and everything in it.
    let example = format!(
        "test /proc/self -ef /proc/$$\n{example}\nuntil grep -q :9090 access.jsonl; do sleep 0.1; done"
    );
    let place = Place::new("");
    fs::set_permissions(place.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    chown(place.path(""), Some(0), Some(0)).unwrap();
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_sidegate-proxy")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let pasted = Command::new("timeout")
        .args(["30", "unshare"])
        .args(options)
        .args(["bash", "-ec", &example])
        .env("PATH", path)
        .current_dir(place.path(""))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&pasted.stdout);
    let log = fs::read_to_string(place.path("proxy.log")).unwrap_or_default();
    assert!(pasted.status.success(), "{pasted:?}\n{log}");
    assert!(said.contains("200 OK") && said.contains("\"reason\":\"no-rule\""), "{said}");
    let records = fs::read_to_string(place.path("access.jsonl")).unwrap();
    assert!(records.contains("203.0.113.10:8080") && records.contains("203.0.113.10:9090"), "{records}");
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}
