//! Platform services behind named grants: what the workload may ask, what arrives there, what is kept.

use std::sync::{Arc, Mutex};

use super::{
    requests::{plain_origin, read_answer, read_head, status},
    *,
};

const IMDS: &str = "169.254.169.254:80";
const IMDS_V6: &str = "[fd00:ec2::254]:80";
const TOKEN: &str = "AQAAAHc4NtSecretSecretSecret==";

fn rules(grants: &str) -> String {
    let grants = grants.split_whitespace().map(|grant| {
        format!("    - {{ name: {grant}, reason: \"the SDK\", to: [ {{ grants: [ {grant} ] }} ] }}\n")
    });
    let grants: String = grants.collect();
    format!(
        "apiVersion: sidegate.dev/v1\nkind: Policy\nmetadata: {{ name: test }}\nspec:\n  egress:\n    - {{ name: web, to: [ {{ hosts: [ www.ok.example ] }} ], ports: [ 443 ] }}\n{grants}"
    )
}

fn ask(line: &str, host: &str, fields: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")
}

/// What one request is answered, what arrived, and its record.
async fn judged(
    grants: &str,
    address: &str,
    request: &str,
) -> (String, Arc<Mutex<Vec<String>>>, AccessRecord) {
    let world = World::start(&rules(grants), ZONE).await;
    let heads = plain_origin(world.origin(address).await);
    let mut client = world.client(address).await;
    client.write_all(request.as_bytes()).await.unwrap();
    // Where no grant opens an address nobody waits for a request: there are no words, but a reset.
    let head = read_head(&mut client).await;
    let status = head.map_or("reset".to_owned(), |head| head[9..12].to_owned());
    drop(client);
    (status, heads, world.record().await)
}

#[tokio::test]
async fn a_session_passes_as_it_came_and_its_token_is_kept_nowhere() {
    for address in [IMDS, IMDS_V6] {
        let host = address.strip_suffix(":80").unwrap();
        let fields = format!("X-aws-ec2-metadata-token: {TOKEN}\r\nUser-Agent: sdk\r\n");
        let request = ask("GET /latest/meta-data/instance-id", host, &fields);
        let (status, heads, record) = judged("ec2-imds", address, &request).await;
        assert_eq!(status, "200", "{address}");
        let head = heads.lock().unwrap()[0].to_lowercase();
        let mut fields: Vec<&str> = head.lines().skip(1).filter(|line| !line.is_empty()).collect();
        fields.sort_unstable();
        let (host, token) = (format!("host: {host}"), TOKEN.to_lowercase());
        let token = format!("x-aws-ec2-metadata-token: {token}");
        assert_eq!(fields, [host.as_str(), "user-agent: sdk", token.as_str()], "nothing is added");
        assert_eq!((record.reason.as_str(), record.rule.as_deref()), ("grant-allows", Some("ec2-imds")));
        assert!(!serde_json::to_string(&record).unwrap().contains("Secret"), "{record:?}");
    }
}

#[tokio::test]
async fn without_a_session_nothing_is_asked() {
    let token = format!("X-aws-ec2-metadata-token: {TOKEN}\r\n");
    let twice = format!("{token}{token}");
    for (grants, line, fields, expected) in [
        ("ec2-imds", "GET /latest/meta-data/", "", "metadata-token"),
        ("ec2-imds", "GET /latest/meta-data/", "X-aws-ec2-metadata-token: \r\n", "metadata-token"),
        ("ec2-imds", "GET /latest/meta-data/", &twice, "metadata-token"),
        ("ec2-imds", "GET /latest/meta-data/iam/security-credentials/r", &token, "metadata-credentials"),
        ("ec2-imds", "GET /latest/meta-data/x/..//./iam/info", &token, "metadata-credentials"),
        ("ec2-imds", "GET /2021-03-23/%75ser-data", &token, "metadata-credentials"),
        ("ec2-imds", "PUT /latest/api/token", "Content-Length: 0\r\n", "http-not-allowed"),
        (
            "ec2-imds",
            "PUT /latest/api/token",
            "X-aws-ec2-metadata-token-ttl-seconds: 21601\r\n",
            "http-not-allowed",
        ),
        ("ec2-imds-credentials", "GET /latest/meta-data/instance-id", &token, "http-not-allowed"),
    ] {
        for address in [IMDS, IMDS_V6] {
            let request = ask(line, address.strip_suffix(":80").unwrap(), fields);
            let (status, heads, record) = judged(grants, address, &request).await;
            assert_eq!((status.as_str(), record.reason.as_str()), ("403", expected), "{grants} {line}");
            assert!(heads.lock().unwrap().is_empty(), "{grants} {line}");
        }
    }
}

#[tokio::test]
async fn credentials_pass_by_the_grant_that_names_them() {
    let token = format!("X-aws-ec2-metadata-token: {TOKEN}\r\n");
    let ttl = "X-aws-ec2-metadata-token-ttl-seconds: 21600\r\n";
    let host = "169.254.169.254";
    let both = "ec2-imds ec2-imds-credentials";
    for (line, fields, rule) in [
        ("GET /latest/meta-data/iam/security-credentials/r", token.as_str(), "ec2-imds-credentials"),
        ("GET /latest/user-data", &token, "ec2-imds-credentials"),
        ("GET /latest/meta-data/instance-id", &token, "ec2-imds"),
        ("PUT /latest/api/token", ttl, "ec2-imds"),
    ] {
        let (status, heads, record) = judged(both, IMDS, &ask(line, host, fields)).await;
        assert_eq!((status.as_str(), record.rule.as_deref()), ("200", Some(rule)), "{line}");
        assert_eq!(heads.lock().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn tasks_and_pods_get_their_credentials_and_nobody_elses() {
    let task = ask("GET /v2/credentials/4f", "169.254.170.2", "");
    let (status, _, record) = judged("ecs-task", "169.254.170.2:80", &task).await;
    assert_eq!((status.as_str(), record.reason.as_str()), ("200", "grant-allows"));
    let fields = "Authorization: Bearer Secret\r\n";
    let pod = ask("GET /v1/credentials", "169.254.170.23", fields);
    let (status, heads, record) = judged("eks-pod-identity", "169.254.170.23:80", &pod).await;
    assert_eq!((status.as_str(), record.reason.as_str()), ("200", "grant-allows"));
    assert!(heads.lock().unwrap()[0].contains("Bearer Secret"), "it arrives");
    assert!(!serde_json::to_string(&record).unwrap().contains("Secret"), "{record:?}");
    let (status, heads, record) = judged("ecs-task time", "169.254.170.23:80", &pod).await;
    assert_eq!((status.as_str(), record.reason.as_str()), ("reset", "address-metadata"));
    assert!(heads.lock().unwrap().is_empty());
}

/// What an earlier request may do says nothing of a later one, and no other protocol is spoken there.
#[tokio::test]
async fn each_request_there_is_judged() {
    let world = World::start(&rules("ec2-imds"), ZONE).await;
    let heads = plain_origin(world.origin(IMDS).await);
    let mut client = world.client(IMDS).await;
    let token = format!("X-aws-ec2-metadata-token: {TOKEN}\r\n");
    for (path, expected) in
        [("/latest/meta-data/", "200"), ("/latest/user-data", "403"), ("/latest/dynamic/", "200")]
    {
        let request = ask(&format!("GET {path}"), "169.254.169.254", &token);
        client.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(status(&read_answer(&mut client).await), expected, "{path}");
    }
    drop(client);
    let mut opaque = world.client(IMDS).await;
    opaque.write_all(b"\x00\x01\x02\x03 no HTTP\r\n").await.unwrap();
    let _ = read_all(&mut opaque).await;
    assert_eq!(world.records(4).await[3].reason, "protocol-mismatch");
    assert_eq!(heads.lock().unwrap().len(), 2);
}
