//! Who takes part in the second scene, with their certificates, peers and policies, in a folder of their own.

use std::{
    fs,
    io::{self, Write},
    net::Ipv4Addr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use sidegate_certs::{Authority, PrivateKey, Profile, UnixTime, lifetime};
use sidegate_policy::{SpiffeId, TrustDomain};

/// The workload that asks.
pub(super) const WEB: &str = "spiffe://demo.test/ns/shop/sa/web";
/// The workload that answers.
pub(super) const ORDERS: &str = "spiffe://demo.test/ns/shop/sa/orders";
/// Somebody who calls himself `web`, with a certificate that nobody vouches for.
pub(super) const STRANGER: &str = "stranger";
/// Where `orders` is, behind a device pair.
pub(super) const ORDERS_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// This end of the device pair.
pub(super) const NEAR_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The application's port, for proven workloads alone.
pub(super) const PORT: u16 = 8080;
/// The application's port that a named exemption opens in plaintext.
pub(super) const PLAIN_PORT: u16 = 8081;

/// What `web` may do.
pub(super) const WEB_POLICY: &str = "\
apiVersion: sidegate.dev/v1
kind: Policy
metadata: { name: web }
spec:
  egress:
    - name: orders
      to: [ { workloads: [ \"spiffe://demo.test/ns/shop/sa/orders\" ] } ]
      ports: [ 8080 ]
      protocol: http
      tls: { mode: mesh }
";

/// What may be done with `orders`.
pub(super) const ORDERS_POLICY: &str = "\
apiVersion: sidegate.dev/v1
kind: Policy
metadata: { name: orders }
spec:
  ingress:
    - name: readers
      from: [ { workloads: [ \"spiffe://demo.test/ns/shop/sa/web\" ] } ]
      ports: [ 8080 ]
      protocol: http
      tls: { mode: mesh }
      http: [ { methods: [ GET ], paths: [ \"/orders/**\" ] } ]
    - name: status
      reason: \"an old monitor speaks no TLS\"
      from: [ { cidrs: [ 10.77.0.0/24 ] } ]
      ports: [ 8081 ]
      protocol: http
      tls: { mode: none }
";

/// The folder; gone when dropped.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes it, readable to its owner alone, with everything in it.
    pub(super) fn make() -> io::Result<Folder> {
        let path = std::env::temp_dir().join(format!("sidegate-demo-mesh-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        let folder = Folder(path);
        let ours = Vouched::new()?;
        ours.certify(&folder.0.join("web"), WEB)?;
        ours.certify(&folder.0.join("orders"), ORDERS)?;
        // Of the same name, and yet of nobody that the others believe.
        Vouched::new()?.certify(&folder.0.join(STRANGER), WEB)?;
        let peers = format!(
            "apiVersion: sidegate.dev/v1\nkind: Peers\npeers:\n  - {{ id: \"{ORDERS}\", addresses: [ {ORDERS_ADDRESS} ] }}\n"
        );
        let config = format!(
            "apiVersion: sidegate.dev/v1\nkind: ProxyConfig\nworkload: {ORDERS}\npolicies: [ orders.yaml ]\n\
             identity: {{ certificate: orders/tls.crt, key: orders/tls.key, bundle: orders/ca.crt }}\n\
             redirect: {{ rules: keep }}\nresolvers: [ \"{NEAR_ADDRESS}\" ]\nlog: {{ level: error }}\nworkers: 1\n"
        );
        for (name, text) in [
            ("peers.yaml", peers.as_str()),
            ("web.yaml", WEB_POLICY),
            ("orders.yaml", ORDERS_POLICY),
            ("proxy.yaml", &config),
        ] {
            write(&folder.0.join(name), text)?;
        }
        Ok(folder)
    }

    /// A file of it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Itself.
    pub(super) fn folder(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // It lies in a folder for temporary files; whoever cleans there takes what can't be removed here.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An authority of the trust domain.
struct Vouched {
    root: Authority,
}

impl Vouched {
    fn new() -> io::Result<Vouched> {
        let domain = TrustDomain::parse("demo.test").map_err(io::Error::other)?;
        let key = PrivateKey::generate().map_err(io::Error::other)?;
        let root =
            Authority::root(&domain, key, UnixTime::now(), lifetime::ROOT).map_err(io::Error::other)?;
        Ok(Vouched { root })
    }

    /// Certificate, key and bundle, under the names that cert-manager gives them.
    fn certify(&self, folder: &Path, id: &str) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o700).create(folder)?;
        let id = SpiffeId::parse(id).map_err(io::Error::other)?;
        let profile = Profile::new(id, lifetime::LEAF).map_err(io::Error::other)?;
        let key = PrivateKey::generate().map_err(io::Error::other)?;
        let svid = self.root.issue(key.public(), &profile, UnixTime::now()).map_err(io::Error::other)?;
        let roots: String =
            self.root.chain().iter().map(|root| sidegate_certs::certificate_to_pem(root)).collect();
        write(&folder.join("tls.crt"), &svid.to_pem())?;
        write(&folder.join("tls.key"), &key.to_pem())?;
        write(&folder.join("ca.crt"), &roots)
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}
