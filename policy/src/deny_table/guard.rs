//! What a grant lets a workload ask a platform service for. Sources: Amazon EC2 user guide, "Use the Instance Metadata
//! Service"; Amazon ECS developer guide, "Task IAM role" and "Task scale-in protection endpoint"; Amazon EKS user guide, "EKS
//! Pod Identity".

use super::Grant;
use crate::{Observed, Predicate, Reason, request::HttpFacts};

/// Where a version 2 session of instance metadata begins.
const SESSION: [&str; 3] = ["latest", "api", "token"];

impl Grant {
    /// Whether what is observed, and asked for where that is seen already, is what the platform's own clients ask for.
    pub(crate) fn admits(
        self,
        observed: Observed,
        http: Option<HttpFacts<'_>>,
    ) -> Result<(), (Reason, Predicate)> {
        if self == Grant::Time {
            return Ok(());
        }
        if observed != Observed::Http {
            return Err((Reason::ProtocolMismatch, Predicate::Protocol));
        }
        let Some(http) = http else { return Ok(()) };
        let asked: Vec<&str> = http.path.as_str().split('/').skip(1).collect();
        let refused = |reason| Err((reason, Predicate::Http));
        let reads = matches!(http.method, "GET" | "HEAD") && http.upgrade.is_none();
        let admitted = match (self, asked.as_slice()) {
            (Grant::Ec2Imds | Grant::Ec2ImdsCredentials, asked) if asked == SESSION => {
                http.method == "PUT" && http.session
            }
            (Grant::Ec2Imds | Grant::Ec2ImdsCredentials, _) if reads && !http.session => {
                return refused(Reason::MetadataToken);
            }
            (Grant::Ec2Imds, asked) if reads && gives_credentials(asked) => {
                return refused(Reason::MetadataCredentials);
            }
            (Grant::Ec2Imds, _) => reads,
            (Grant::Ec2ImdsCredentials, asked) => reads && gives_credentials(asked),
            (Grant::EcsTask, ["api", _, "task-protection", "v1", "state"]) => reads || http.method == "PUT",
            (Grant::EcsTask, _) => reads,
            (Grant::EksPodIdentity, ["v1", "credentials"]) => reads,
            (Grant::EksPodIdentity, ["healthz" | "readyz"]) => reads,
            (Grant::EksPodIdentity | Grant::Time, _) => false,
        };
        if admitted { Ok(()) } else { refused(Reason::HttpNotAllowed) }
    }
}

/// Under any version of the tree, in any case that a server might forgive: the role's credentials, those of the instance
/// itself, and user data, which often holds secrets.
fn gives_credentials(asked: &[&str]) -> bool {
    let [_version, branch, rest @ ..] = asked else { return false };
    let is = |segment: &str, name: &str| segment.eq_ignore_ascii_case(name);
    let secret = |leaf: &&str| is(leaf, "iam") || is(leaf, "identity-credentials");
    is(branch, "user-data") || is(branch, "meta-data") && rest.first().is_some_and(secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CanonicalPath;

    fn judged(grant: Grant, asked: &str, session: bool) -> Option<Reason> {
        let (method, path) = asked.split_once(' ').expect("a method");
        let path = CanonicalPath::parse(path).expect("a path");
        let http = HttpFacts { method, path: &path, upgrade: None, session };
        grant.admits(Observed::Http, Some(http)).err().map(|(reason, _)| reason)
    }

    #[test]
    fn instance_metadata_is_version_2_alone() {
        use Grant::Ec2Imds;
        for (asked, session, expected) in [
            ("PUT /latest/api/token", true, None),
            ("PUT /latest/api/token", false, Some(Reason::HttpNotAllowed)),
            ("PUT /latest/meta-data/x", true, Some(Reason::HttpNotAllowed)),
            ("POST /latest/api/token", true, Some(Reason::HttpNotAllowed)),
            ("GET /latest/api/token", true, Some(Reason::HttpNotAllowed)),
            ("GET /latest/meta-data/instance-id", true, None),
            ("HEAD /latest/meta-data/", true, None),
            ("GET /", true, None),
            ("GET /latest/meta-data/instance-id", false, Some(Reason::MetadataToken)),
            ("GET /latest/meta-data/iam/info", false, Some(Reason::MetadataToken)),
            ("DELETE /latest/meta-data/x", true, Some(Reason::HttpNotAllowed)),
        ] {
            assert_eq!(judged(Ec2Imds, asked, session), expected, "{asked} {session}");
        }
    }

    #[test]
    fn credentials_need_a_grant_of_their_own() {
        for asked in [
            "GET /latest/meta-data/iam/security-credentials/role",
            "GET /latest/meta-data/iam",
            "GET /latest//meta-data/./x/../iam/",
            "GET /latest/meta-data/%69am/info",
            "GET /2021-07-15/meta-data/iam/info",
            "GET /LATEST/META-DATA/IAM/info",
            "GET /latest/meta-data/identity-credentials/ec2/security-credentials/ec2-instance",
            "GET /latest/user-data",
            "GET /1.0/user-data/",
        ] {
            assert_eq!(judged(Grant::Ec2Imds, asked, true), Some(Reason::MetadataCredentials), "{asked}");
            assert_eq!(judged(Grant::Ec2ImdsCredentials, asked, true), None, "{asked}");
            assert_eq!(judged(Grant::Ec2ImdsCredentials, asked, false), Some(Reason::MetadataToken));
        }
        assert_eq!(judged(Grant::Ec2ImdsCredentials, "PUT /latest/api/token", true), None);
        let other = judged(Grant::Ec2ImdsCredentials, "GET /latest/meta-data/instance-id", true);
        assert_eq!(other, Some(Reason::HttpNotAllowed), "it opens nothing else");
    }

    #[test]
    fn tasks_and_pods_ask_what_their_agents_answer() {
        use Reason::HttpNotAllowed;
        for (grant, asked, expected) in [
            (Grant::EcsTask, "GET /v2/credentials/1", None),
            (Grant::EcsTask, "GET /v4/0a/task", None),
            (Grant::EcsTask, "PUT /api/0a/task-protection/v1/state", None),
            (Grant::EcsTask, "PUT /v2/credentials/1", Some(HttpNotAllowed)),
            (Grant::EksPodIdentity, "GET /v1/credentials", None),
            (Grant::EksPodIdentity, "GET /v1/other", Some(HttpNotAllowed)),
            (Grant::EksPodIdentity, "POST /v1/credentials", Some(HttpNotAllowed)),
        ] {
            assert_eq!(judged(grant, asked, false), expected, "{asked}");
        }
    }

    #[test]
    fn nothing_but_http_is_spoken_there() {
        let tls = Observed::Tls { offers_tls13: true, ech: false };
        for observed in [tls, Observed::Opaque] {
            let refused = Grant::EcsTask.admits(observed, None).expect_err("it is no HTTP");
            assert_eq!(refused, (Reason::ProtocolMismatch, Predicate::Protocol));
        }
        assert_eq!(Grant::EcsTask.admits(Observed::Http, None), Ok(()), "each request is judged then");
        assert_eq!(Grant::Time.admits(Observed::Udp, None), Ok(()));
    }
}
