use super::*;

const WHOLE: &str = r#"
apiVersion: sidegate.dev/v1
kind: ProxyConfig
policies: [ policies, /etc/sidegate/extra.yaml ]
workload: spiffe://example.org/ns/pay/sa/api
listen: { outbound: 16001, dns: 0, ready: "127.0.0.1:16021", metrics: "[::1]:16020" }
admin: { socket: /run/sidegate/admin.sock }
state: /var/lib/sidegate
accessLog: /var/log/sidegate/access.jsonl
log: { format: text, level: debug }
redirect: { rules: none, uid: 1400 }
workers: 3
resolvers: [ 10.0.0.2, "10.0.0.3:5353", "::1" ]
dns: { denied: nxdomain, search: [ svc.cluster.local ], namesPerMinute: 10 }
tls: { allowEch: true }
limits: { connections: 100, connectionsPerSource: 10, descriptorReserve: 32, classifyBytes: 16384 }
timeouts: { classify: 250ms, connect: 3s, idle: 2m, drain: 1h }
"#;

fn parse(text: &str) -> Result<Config, Vec<Diagnostic>> {
    Config::parse(&Source::new("proxy.yaml", text), Path::new("/etc/sidegate"))
}

/// `line:column code` of every diagnostic.
fn places(text: &str) -> Vec<String> {
    let wrong = parse(text).expect_err("it is refused");
    wrong.iter().map(|one| format!("{}:{} {}", one.line, one.column, one.code)).collect()
}

#[test]
fn the_system_names_only_what_the_configuration_does_not() {
    let found = || ResolvConf::parse("nameserver 10.9.9.9\nsearch ns.svc.cluster.local svc.cluster.local\n");
    let names =
        |config: &Config| config.settings.dns_search.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut whole = parse(WHOLE).expect("it is right");
    whole.fill_from(found());
    assert_eq!((whole.settings.resolvers.len(), names(&whole)), (3, vec!["svc.cluster.local".to_owned()]));
    let least = "apiVersion: sidegate.dev/v1\nkind: ProxyConfig\npolicies: [ p.yaml ]\n";
    let mut least = parse(least).expect("it is right");
    least.fill_from(found());
    assert_eq!(least.settings.resolvers, ["10.9.9.9:53".parse().expect("an address")]);
    assert_eq!(names(&least), ["ns.svc.cluster.local", "svc.cluster.local"]);
}

#[test]
fn every_field_arrives() {
    let config = parse(WHOLE).expect("it is right");
    let folder = PathBuf::from("/etc/sidegate");
    assert_eq!(config.policies, [folder.join("policies"), folder.join("extra.yaml")]);
    assert_eq!(config.workload.expect("a workload").as_str(), "spiffe://example.org/ns/pay/sa/api");
    assert_eq!((config.listen.outbound, config.listen.dns), (16001, 0));
    assert_eq!(config.listen.ready.to_string(), "127.0.0.1:16021");
    assert_eq!(config.listen.metrics.to_string(), "[::1]:16020");
    assert_eq!(config.admin_socket, Some(PathBuf::from("/run/sidegate/admin.sock")));
    assert_eq!(config.state, Some(PathBuf::from("/var/lib/sidegate")));
    assert_eq!(config.access_log, Target::File(PathBuf::from("/var/log/sidegate/access.jsonl")));
    assert_eq!((config.log.format, config.log.level), (LogFormat::Text, LogLevel::Debug));
    assert_eq!(config.redirect, Redirect { rules: Rules::None, uid: 1400 });
    let settings = config.settings;
    assert_eq!(settings.workers, 3);
    let resolvers: Vec<String> = settings.resolvers.iter().map(ToString::to_string).collect();
    assert_eq!(resolvers, ["10.0.0.2:53", "10.0.0.3:5353", "[::1]:53"]);
    assert!(settings.dns_denied_nxdomain && settings.allow_ech);
    assert_eq!(settings.dns_search[0].as_str(), "svc.cluster.local");
    assert_eq!(settings.dns_names_per_minute, 10);
    assert_eq!((settings.connections, settings.connections_per_source), (100, 10));
    assert_eq!((settings.descriptor_reserve, settings.classify_bytes), (32, 16384));
    let millis = |time: Duration| time.as_millis();
    assert_eq!((millis(settings.classify_timeout), millis(settings.connect_timeout)), (250, 3000));
    assert_eq!((millis(settings.idle_timeout), millis(settings.drain_timeout)), (120_000, 3_600_000));
}

#[test]
fn the_least_that_is_needed_gives_the_defaults() {
    let config = parse("{ apiVersion: sidegate.dev/v1, kind: ProxyConfig, policies: [ p.yaml ] }")
        .expect("it is right");
    let by_default = Settings::default();
    assert_eq!((config.listen.outbound, config.listen.dns), (15001, 15053));
    assert_eq!(config.listen.ready.to_string(), "[::]:15021");
    assert_eq!(config.access_log, Target::Stdout);
    assert_eq!(config.redirect, Redirect { rules: Rules::Expect, uid: 1337 });
    assert_eq!(config.settings.connections, by_default.connections);
    assert_eq!(config.settings.drain_timeout, by_default.drain_timeout);
    assert!(config.admin_socket.is_none() && config.state.is_none());
}

#[test]
fn every_error_comes_at_once_with_its_place() {
    let text = "apiVersion: sidegate.dev/v2
kind: ProxyConfig
policies: []
colour: red
listen: { outbound: 70000, sideways: 1, ready: here }
timeouts: { idle: 90, drain: 0s }
limits: { connections: many }
log: { level: loud }
resolvers: [ dns.example, 0.0.0.0 ]
redirect: { rules: perhaps, uid: 0 }
workload: api
";
    assert_eq!(
        places(text),
        [
            "1:13 value",
            "3:11 empty-list",
            "4:1 unknown-field",
            "5:21 value",
            "5:28 unknown-field",
            "5:48 value",
            "6:19 wrong-type",
            "6:30 value",
            "7:24 value",
            "8:15 level",
            "9:14 value",
            "9:27 value",
            "10:20 rules",
            "10:34 value",
            "11:11 value",
        ]
    );
}

#[test]
fn what_is_no_configuration_is_refused() {
    for (text, code) in [
        ("", "documents"),
        ("[]", "wrong-type"),
        ("kind: ProxyConfig\nkind: ProxyConfig", "duplicate-key"),
        ("a: &x 1\nb: *x", "anchor"),
        ("{}", "missing-field"),
        ("kind: ProxyConfig\n---\nkind: ProxyConfig", "documents"),
    ] {
        let wrong = parse(text).expect_err(text);
        assert!(wrong.iter().any(|one| one.code == code), "{text}: {wrong:?}");
    }
}

#[test]
fn peers_take_an_identity() {
    let least = "apiVersion: sidegate.dev/v1\nkind: ProxyConfig\npolicies: [ p.yaml ]\npeers: peers.yaml\n";
    assert_eq!(places(least), ["1:1 missing-field"]);
    let identity = "identity: { certificate: a, key: b, bundle: c, trustDomain: example.org }\n";
    let config = parse(&format!("{least}{identity}")).expect("it is right");
    assert_eq!(config.peers, Some(PathBuf::from("/etc/sidegate/peers.yaml")));
}

#[test]
fn certificates_for_clients_stand_by_label() {
    let least = "apiVersion: sidegate.dev/v1\nkind: ProxyConfig\npolicies: [ p.yaml ]\n";
    for (wrong, expected) in [
        ("{ Shop: { certificate: a, key: b } }", "4:17 name"),
        ("{ shop: { certificate: a } }", "4:23 missing-field"),
        ("{ shop: { certificate: a, key: b, bundle: c } }", "4:49 unknown-field"),
        ("{ shop: tls.pem }", "4:23 wrong-type"),
        ("[ shop ]", "4:15 wrong-type"),
    ] {
        assert_eq!(places(&format!("{least}certificates: {wrong}\n")), [expected], "{wrong}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let rule = |name: &str, port: u16| {
        format!(
            "    - {{ name: {name}, from: [ {{ cidrs: [ 10.0.0.0/8 ] }} ], ports: [ {port} ], \
             tls: {{ mode: terminate, certificate: {name} }} }}\n"
        )
    };
    let policy = "apiVersion: sidegate.dev/v1\nkind: Policy\nmetadata: { name: p }\nspec:\n  ingress:\n";
    let policy = format!("{policy}{}{}", rule("shop", 443), rule("other", 8443));
    std::fs::write(folder.path().join("p.yaml"), policy).expect("written");
    let text = format!("{least}certificates: {{ shop: {{ certificate: a.crt, key: a.key }} }}\n");
    let config = Config::parse(&Source::new("proxy.yaml", text), folder.path()).expect("it is right");
    assert_eq!(config.certificates["shop"].key, folder.path().join("a.key"));
    let warnings = crate::sidecar::check(&config).expect("it is right").warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("rule `other` of policy `p`") && warnings[0].contains("not configured"));
    assert!(warnings[1].contains("a.crt: it is not there"), "{warnings:?}");
    std::fs::write(folder.path().join("a.crt"), "nonsense").expect("written");
    std::fs::write(folder.path().join("a.key"), "nonsense").expect("written");
    let refused = crate::sidecar::check(&config).expect_err("they make no pair");
    assert!(refused.len() == 1 && refused[0].code == "certificate", "{refused:?}");
}
