//! The command line of `sidegate run`.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use sidegate_proxy::{access_log::JsonLines, origins::RootsFollower};

/// Run a command behind a policy: without root, without set-up.
///
/// The command gets a network of its own that leads nowhere but through Sidegate. Each connection and each DNS question
/// is judged, passed on or refused, and recorded.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct RunArgs {
    /// A policy file; may be given several times. Default: ./sidegate.yaml, else everything is denied.
    #[arg(long = "policy", short = 'p', value_name = "FILE")]
    pub(crate) policies: Vec<PathBuf>,

    /// What becomes of what no rule allows. Default: refused, but as the policy says where it says `mode: audit`.
    #[arg(long, value_enum)]
    pub(crate) mode: Option<Mode>,

    /// Append one JSON line per connection and question to this file (`-`: standard output).
    #[arg(long, value_name = "FILE")]
    pub(crate) access_log: Option<PathBuf>,

    /// Print each denial on standard error as it happens: what, why, and what to do.
    #[arg(long)]
    pub(crate) explain: bool,

    /// When to print the closing summary on standard error.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = SummaryWhen::Denied)]
    pub(crate) summary: SummaryWhen,

    /// Say nothing of one's own but errors.
    #[arg(long, short, conflicts_with = "explain")]
    pub(crate) quiet: bool,

    /// The upstream resolver to ask; may be given several times. Default: those of /etc/resolv.conf.
    #[arg(long, value_name = "ADDR[:PORT]", value_parser = parse_resolver)]
    pub(crate) resolver: Vec<SocketAddr>,

    /// The root certificates (PEM) that a label in rules stands for; may be given several times.
    #[arg(long, value_name = "LABEL=FILE", value_parser = parse_roots)]
    pub(crate) roots: Vec<(String, PathBuf)>,

    /// Be a workload of the mesh: a folder with `tls.crt`, `tls.key` and `ca.crt`, and `revoked.crl` where there is one.
    ///
    /// The files are followed as somebody renews them. The command runs as the same user and can read them.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) identity: Option<PathBuf>,

    /// The file that says where other workloads are, for rules with `workloads`.
    #[arg(long, value_name = "FILE", requires = "identity")]
    pub(crate) peers: Option<PathBuf>,

    /// Keep a Unix socket reachable, such as "$SSH_AUTH_SOCK". All that exist at the start are closed otherwise.
    #[arg(long, value_name = "PATH")]
    pub(crate) allow_socket: Vec<PathBuf>,

    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

impl RunArgs {
    /// What the command line names must be there, said before anything is made.
    ///
    /// # Errors
    /// The option, what it names, what is wrong with it and what to do.
    pub(super) fn check(&self) -> Result<(), String> {
        for path in &self.allow_socket {
            let fault = match fs::metadata(path) {
                Ok(found) if found.file_type().is_socket() => continue,
                Ok(_) => "it is no Unix socket".to_owned(),
                Err(error) => error.to_string(),
            };
            let path = path.display();
            return Err(format!(
                "--allow-socket {path}: {fault}; name a socket that somebody listens on now"
            ));
        }
        if let Some(fault) = RootsFollower::check(&self.labelled()).first() {
            return Err(format!("--roots: {fault}; {}", fault.fix()));
        }
        match self.access_log.as_deref() {
            // Opened again, by the proxy alone, once the command's side is made; the reader of a named pipe would take
            // the first close for the end.
            Some(path)
                if path != Path::new("-") && !fs::metadata(path).is_ok_and(|found| !found.is_file()) =>
            {
                open_access_log(path).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Files of roots by label; the last of one label counts.
    pub(super) fn labelled(&self) -> BTreeMap<String, PathBuf> {
        self.roots.iter().cloned().collect()
    }

    /// The program's file name.
    pub(super) fn command_name(&self) -> String {
        let name = self.command.first().and_then(|program| Path::new(program).file_name());
        name.unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// The access log.
///
/// # Errors
/// The option, the file, the system's words and what to do.
pub(super) fn open_access_log(path: &Path) -> Result<JsonLines, String> {
    let remedy = "name a file that you may write, in a folder that exists, or `-` for standard output";
    JsonLines::file(path).map_err(|error| format!("--access-log {}: {error}; {remedy}", path.display()))
}

/// What becomes of connections that no rule allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// They are refused, also where the policy says `mode: audit` or a rule says `auditUntil`.
    Enforce,
    /// They pass, recorded as `would-deny`.
    Audit,
}

/// When the closing summary is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum SummaryWhen {
    /// Never.
    Never,
    /// When something was denied or would have been.
    Denied,
    /// Whenever the command ends.
    Always,
}

const AFTER_HELP: &str = "\
Examples:
  sidegate run -- npm ci                              deny everything that ./sidegate.yaml does not allow
  sidegate run --policy ci.yaml --explain -- make test
  sidegate run --mode audit -- ./build.sh             let it pass; the summary is a policy for what was seen
  sidegate run --access-log access.jsonl -- bash      a shell behind the gate
  sidegate run --identity ./me --peers peers.yaml -- ./client    plaintext to other workloads, mutual TLS outside

Exit status: the command's own (128+N when signal N killed it); 126 when the command can't be executed, 127 when it
is not found. Before the command starts: 1 for an invalid policy, 2 for wrong usage or a policy that can't be
read, 3 where namespaces are not permitted.";

fn parse_roots(text: &str) -> Result<(String, PathBuf), String> {
    let label = |label: &&str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    text.split_once('=')
        .filter(|(name, file)| label(name) && !file.is_empty())
        .map(|(name, file)| (name.to_owned(), PathBuf::from(file)))
        .ok_or_else(|| {
            "give a label (1 to 63 of a-z, 0-9 and `-`), `=` and a file: corporate=/etc/ssl/corporate.pem"
                .to_owned()
        })
}

fn parse_resolver(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)).map_err(|_| {
        "give an address such as 10.0.0.2, 10.0.0.2:5353 or [fd00::2]:53; names are not resolved here"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_is_an_address_with_or_without_a_port() {
        assert_eq!(parse_resolver("10.0.0.2").unwrap(), "10.0.0.2:53".parse().unwrap());
        assert_eq!(parse_resolver("::1").unwrap(), "[::1]:53".parse().unwrap());
        assert_eq!(parse_resolver("[::1]:5353").unwrap(), "[::1]:5353".parse().unwrap());
        assert!(parse_resolver("dns.example").is_err());
    }
}
