//! The stable words that say why a verdict fell. One enum; `docs/reasons.md` is generated from it.

/// Whose fault a refusal or failure is. Shown beside every reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Nobody's: the connection was allowed.
    None,
    /// The policy does not permit it.
    Policy,
    /// The application sent something that can't be judged.
    Application,
    /// The far end failed or is not what it must be.
    Upstream,
    /// Name resolution failed.
    Resolver,
    /// Sidegate itself: a limit or a capability that is absent.
    Sidegate,
}

macro_rules! reasons {
    ($( $variant:ident, $word:literal, $side:ident, $meaning:literal, $fix:literal; )*) => {
        /// Why a verdict fell, as a stable word (`kebab-case`). Never renamed; new ones may be added.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $( #[doc = $meaning] $variant, )* }

        impl Reason {
            /// Every reason, in the order of the docs' table.
            pub const ALL: &'static [Reason] = &[ $( Reason::$variant, )* ];

            /// The stable word that access records and metrics carry.
            pub const fn word(self) -> &'static str { match self { $( Reason::$variant => $word, )* } }

            /// Whose fault it is.
            pub const fn side(self) -> Side { match self { $( Reason::$variant => Side::$side, )* } }

            /// One sentence: what happened.
            pub const fn meaning(self) -> &'static str { match self { $( Reason::$variant => $meaning, )* } }

            /// One sentence: what to do next. Empty when nothing is to be done.
            pub const fn fix(self) -> &'static str { match self { $( Reason::$variant => $fix, )* } }

            /// The reason with this word.
            pub fn from_word(word: &str) -> Option<Reason> {
                match word { $( $word => Some(Reason::$variant), )* _ => None }
            }
        }
    };
}

reasons! {
    RuleAllows, "rule-allows", None, "A rule allows it.", "";
    GrantAllows, "grant-allows", None, "A named grant allows it.", "";
    ProbeAllows, "probe-allows", None, "It is a declared health probe.", "";
    Loopback, "loopback", None, "Traffic between processes of the same workload.", "";

    NoPolicy, "no-policy", Policy, "No policy is loaded yet.", "Load a policy that applies to this workload.";
    NoRule, "no-rule", Policy, "No rule allows it.", "Add an allow rule for this destination.";
    RuleDenies, "rule-denies", Policy, "A deny rule matches; deny always wins.", "Remove or narrow the deny rule.";
    NameNotAllowed, "name-not-allowed", Policy, "No rule could allow this name, so it is not asked upstream.", "Add a rule with this host.";
    HostMissing, "host-missing", Policy, "The connection names no host and no address rule allows its destination.", "Send SNI, or add a rule with `cidrs`.";
    TlsRequired, "tls-required", Policy, "The rule demands TLS and the connection is not TLS.", "Speak TLS 1.3, or name an exemption with `tls: { mode: none }` and a reason.";
    TlsVersionClient, "tls-version-client", Policy, "The client does not offer the TLS version that the rule demands.", "Let the client offer TLS 1.3, or exempt it with `tls: { min: \"1.2\" }`.";
    TlsVersionServer, "tls-version-server", Policy, "The server selected a TLS version older than the rule demands.", "Upgrade the server to TLS 1.3, or exempt it with `tls: { min: \"1.2\" }`.";
    TlsEch, "tls-ech", Policy, "The client sent Encrypted Client Hello, which hides the real name.", "Turn ECH off in the client.";
    ProtocolMismatch, "protocol-mismatch", Policy, "A rule names this destination for another protocol.", "Correct `protocol` in the rule, or the client.";
    HttpNotAllowed, "http-not-allowed", Policy, "No `http` entry allows this method and path.", "Add the method and path to the rule.";
    UpgradeNotAllowed, "upgrade-not-allowed", Policy, "No `http` entry allows this path to change from HTTP to another protocol.", "Add an entry `{ upgrade: websocket, paths: [ ... ] }` to the rule.";
    CarriedOtherwise, "carried-otherwise", Policy, "The policy now carries such connections otherwise than this one: in another TLS mode, with other demands on the server, or with another certificate for the client.", "Open the connection again.";
    MeshRequired, "mesh-required", Policy, "This port takes streams of the mesh alone, and the connection came by itself, with no proof of who sent it.", "Let the client connect through a sidecar with an identity, or exempt its addresses with `tls: { mode: none }` and a reason.";
    MetadataToken, "metadata-token", Policy, "Instance metadata is asked for without the token of a session (IMDSv2).", "Use a client that speaks IMDSv2: it begins with `PUT /latest/api/token`.";
    MetadataCredentials, "metadata-credentials", Policy, "The instance's own credentials and its user data need a grant of their own.", "Add the grant `ec2-imds-credentials`, or give the workload a role of its own.";
    PeerNotAllowed, "peer-not-allowed", Policy, "No rule allows this peer.", "Add the peer to the rule's `from`.";

    AddressLoopback, "address-loopback", Policy, "Loopback addresses are never reachable through the proxy.", "";
    AddressOwnListener, "address-own-listener", Policy, "The proxy's own listeners are never reachable through the proxy.", "";
    AddressLinkLocal, "address-link-local", Policy, "Link-local addresses are denied by the fixed table.", "If it is a platform service, use its named grant.";
    AddressMetadata, "address-metadata", Policy, "Cloud metadata and credential addresses are denied by the fixed table.", "Use the named grant: ec2-imds, ec2-imds-credentials, ecs-task, eks-pod-identity or time.";
    AddressUnspecified, "address-unspecified", Policy, "The unspecified address is denied by the fixed table.", "";
    AddressMulticast, "address-multicast", Policy, "Multicast is denied by the fixed table.", "";
    AddressBroadcast, "address-broadcast", Policy, "Broadcast is denied by the fixed table.", "";
    AddressReserved, "address-reserved", Policy, "An address of a reserved range.", "";
    AddressPrivate, "address-private", Policy, "A rule by host would lead to an address that is not public: private, shared (CGNAT), ULA or documentation. The name leads there, or the application chose the address by itself.", "If the name is meant to lead there, say `private: true` beside the host; if the application chose the address, let it connect to where the name leads, or add a rule with `cidrs`.";
    AddressEmbedded, "address-embedded", Policy, "An IPv6 form that embeds an IPv4 address (mapped, NAT64, 6to4, Teredo).", "Use the IPv4 address itself.";

    HostInvalid, "host-invalid", Application, "The host name is not a valid, canonical DNS name.", "Send a valid DNS name (A-labels, letters, digits and hyphens).";
    HostIsAddress, "host-is-address", Application, "The host name is an IP literal.", "Use a DNS name, or add a rule with `cidrs`.";
    HostHidden, "host-hidden", Policy, "A deny rule by host covers this port, and not every host that the connection is for can be read.", "Use TLS with SNI here, name the destination by host, or narrow the deny rule's ports.";
    HostMismatch, "host-mismatch", Application, "Two parts of the request name different hosts.", "Send one host throughout.";
    TlsMalformed, "tls-malformed", Application, "The ClientHello is malformed or ambiguous.", "Check the client's TLS library.";
    TlsSecondHello, "tls-second-hello", Application, "The second ClientHello names another host than the first.", "Check the client's TLS library.";
    HttpMalformed, "http-malformed", Application, "The HTTP head is malformed or ambiguous.", "Check the client's HTTP library.";
    ClassifyTimeout, "classify-timeout", Application, "The client sent too little to be judged within the deadline.", "If the server speaks first, use a rule with `protocol: tcp`.";
    ClassifyEof, "classify-eof", Application, "The client closed before it could be judged.", "";
    ClassifyTooLarge, "classify-too-large", Application, "The client's first message is larger than the budget.", "";
    NotRedirected, "not-redirected", Application, "The connection came straight to the proxy's port instead of being redirected.", "Connect to the destination itself.";

    DnsMalformed, "dns-malformed", Application, "The DNS question is malformed.", "";
    DnsType, "dns-type", Policy, "This DNS record type is not answered.", "Ask for A or AAAA.";
    DnsSearch, "dns-search", Policy, "No rule could allow this name; it looks like a search-domain candidate, so the client is told to try the next one.", "Nothing, unless this very name is meant: then add a rule with this host.";
    DnsBudget, "dns-budget", Policy, "Too many different names under one wildcard rule within a minute; names can carry data out.", "Name the hosts exactly, or raise `dns.namesPerMinute`.";
    UdpRefused, "udp-refused", Policy, "No `udp` rule allows this datagram.", "Add a rule with `protocol: udp`, or let the client fall back to TCP.";
    OlderThanRules, "older-than-rules", Policy, "The connection is older than the redirect rules.", "Open it again.";
    ProtocolRefused, "protocol-refused", Policy, "Only TCP, DNS and allowed UDP leave a workload.", "";

    ResolveNotFound, "resolve-not-found", Resolver, "The name does not exist or has no address.", "Check the name.";
    ResolveFailed, "resolve-failed", Resolver, "The resolver failed or its answer was unusable.", "Check the configured resolvers.";
    ResolveTimeout, "resolve-timeout", Resolver, "The resolver did not answer in time.", "Check the configured resolvers.";
    DialRefused, "dial-refused", Upstream, "The destination refused the connection.", "Check that the server listens there.";
    DialTimeout, "dial-timeout", Upstream, "The destination did not answer in time.", "Check the route and the far end's firewall.";
    DialUnreachable, "dial-unreachable", Upstream, "The destination can't be reached from here.", "Check the route.";
    UpstreamMalformed, "upstream-malformed", Upstream, "The server's first message is not the protocol that the rule demands.", "Check the server.";
    UpstreamClosed, "upstream-closed", Upstream, "The server closed the connection instead of answering.", "Check the server.";
    UpstreamHandshake, "upstream-handshake", Upstream, "The TLS handshake with the server failed.", "Check the server's TLS.";
    UpstreamCertificate, "upstream-certificate", Upstream, "The server's certificate is not one that is believed for this name.", "Check the certificate, or name the roots that issued it.";
    UpstreamPin, "upstream-pin", Upstream, "The server's certificate is valid, but no key of its chain is one that the rule pins.", "Make sure that it is the right server; if its keys have changed, add the new one to the rule's `pins`.";

    MeshIdentityMissing, "mesh-identity-missing", Sidegate, "This workload has no valid identity to prove itself with: none is configured, or it is absent, expired or revoked.", "Configure `identity`; `/certs` and the log say what is wrong with it.";
    MeshIdentityRefused, "mesh-identity-refused", Upstream, "The peer does not believe this workload's certificate.", "Compare the peer's trust bundle and revocation lists with this workload's certificate.";
    MeshHandshake, "mesh-handshake", Upstream, "No mutual TLS 1.3 connection of the mesh could be made: whoever listens there does not speak it.", "Check that the peer's sidecar listens at the address and port of the peers file.";
    MeshPeerUntrusted, "mesh-peer-untrusted", Upstream, "The peer's certificate is not one that is believed: unknown issuer, other trust domain, expired or revoked.", "Check the peer's certificate, and this workload's trust bundle and revocation lists.";
    MeshPeerMismatch, "mesh-peer-mismatch", Upstream, "Another workload than the expected one has proven to be at the address.", "Correct the peers file, or see who took over the address.";
    MeshPeerMoved, "mesh-peer-moved", Policy, "The peers file no longer names this workload at the address.", "Open the connection again.";
    MeshRefused, "mesh-refused", Upstream, "The peer's own policy refused the connection (403).", "Add this workload to an `ingress` rule of the peer's policy.";
    MeshUnavailable, "mesh-unavailable", Upstream, "The peer was reached, but not the application behind it (404, 503).", "Check that the application listens at the destination's port.";

    InspectionRefused, "inspection-refused", Application, "The client does not believe the certificate that inspection shows it.", "Let the client trust the workload's inspection authority, or exempt the host with `passthrough` if it pins its server's key.";

    PeerHandshake, "peer-handshake", Upstream, "The TLS handshake with who connected failed: it speaks something else, or does not believe the certificate it was shown.", "Check the client's TLS, and whether it knows this trust domain.";
    PeerCertificate, "peer-certificate", Upstream, "Who connected shows no certificate, or one that is not believed: of another trust domain, expired or revoked.", "Check the client's identity, and that its trust domain's roots are in `identity.bundle`.";
    DestinationForeign, "destination-foreign", Upstream, "A stream of the mesh asks for an address that is none of this workload's.", "Check where the client's peers file says that the workload is.";
    IdentityMissing, "identity-missing", Sidegate, "There is no certificate that may be shown: none is configured, or it has expired.", "Give the proxy an identity, or renew it; `/certs` and the log say what is wrong.";
    LimitInspection, "limit-inspection", Sidegate, "Too many different hosts were to be inspected within a second.", "Find what asks for so many hosts.";
    LimitRequests, "limit-requests", Policy, "The rule's limit of requests is reached.", "Ask less often, or raise `limits.requestsPerSecond` in the rule.";
    LimitConnections, "limit-connections", Sidegate, "The limit of concurrent connections is reached.", "Raise `limits.connections`, or find what opens them.";
    LimitSource, "limit-source", Sidegate, "The limit of connections from one source is reached.", "Raise `limits.connectionsPerSource`, or find what opens them.";
    LimitQuestions, "limit-questions", Sidegate, "Too many DNS questions are waiting for an answer.", "Find what asks so many, or check the configured resolvers.";
    LimitSynthetic, "limit-synthetic", Sidegate, "No synthetic address is left for another name.", "Name the hosts exactly, or use `protocol: tls`.";
    LimitDescriptors, "limit-descriptors", Sidegate, "Too few file descriptors are left.", "Raise the descriptor limit (`ulimit -n`).";
    LimitPorts, "limit-ports", Sidegate, "No source port is free on this host for another connection to the destination.", "Widen `net.ipv4.ip_local_port_range`, or let `sidegate-proxy init` set `net.ipv4.tcp_tw_reuse=1`.";
    LimitMemory, "limit-memory", Sidegate, "The kernel has no memory for another socket.", "Give the host or container more memory, or raise `net.ipv4.tcp_mem`.";
    DialForbidden, "dial-forbidden", Sidegate, "This host itself forbids the connection: its firewall, a `prohibit` route or its security module.", "Allow the proxy's user in this host's firewall (output), routes and security module.";
    Draining, "draining", Sidegate, "The proxy is shutting down.", "";
    NotSupported, "not-supported", Sidegate, "The rule asks for a treatment that this build does not carry out; refused rather than weakened.", "Change the rule's `tls.mode` or `protocol`.";
    Internal, "internal", Sidegate, "An unexpected failure inside the proxy; the connection was refused.", "Please report it with the log.";
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

/// Every reason as a table in Markdown; `docs/reasons.md` is this text.
pub fn reasons_table() -> String {
    let mut table = String::from(
        "# Reasons\n\nEvery verdict and every failure carries one of these words. Words are never renamed; new ones may be added.\n\
         This file is made from the code; a test keeps it current.\n\n\
         | word | side | what happened | what to do |\n|---|---|---|---|\n",
    );
    for reason in Reason::ALL {
        let side = match reason.side() {
            Side::None => "nobody",
            Side::Policy => "policy",
            Side::Application => "application",
            Side::Upstream => "far end",
            Side::Resolver => "resolver",
            Side::Sidegate => "Sidegate",
        };
        let cells = [reason.meaning(), reason.fix()].map(|text| text.replace('|', "\\|"));
        table.push_str(&format!("| `{reason}` | {side} | {} | {} |\n", cells[0], cells[1]));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_unique_and_found_again() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_word(reason.word()), Some(*reason));
        }
    }

    /// `SIDEGATE_WRITE_DOCS=1` rewrites the file instead.
    #[test]
    fn the_docs_table_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reasons.md");
        if std::env::var_os("SIDEGATE_WRITE_DOCS").is_some() {
            std::fs::write(path, reasons_table()).expect("docs/ is writable");
        }
        let written = std::fs::read_to_string(path).expect("docs/reasons.md");
        assert!(
            written == reasons_table(),
            "run this test with SIDEGATE_WRITE_DOCS=1 and commit docs/reasons.md"
        );
    }
}
