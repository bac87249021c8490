//! `sidegate-proxy init`: puts the rules in place before the workload starts, and goes away.

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

use super::{
    DNS_PORT, Exempt, FrameWall, INBOUND_PORT, Netlink, OUTBOUND_PORT, PROXY_UID, Plan, RedirectError, Spec,
    install, links, remove,
    sysctl::{self, Tuned},
};

/// Put the redirect rules in place in this network namespace, or print or remove them.
#[derive(Clone, Debug, clap::Args)]
pub struct InitCommand {
    /// Print the rules as text for `nft -f` and change nothing; needs no privilege.
    #[arg(long, conflicts_with = "remove")]
    print: bool,
    /// Remove every rule of Sidegate. Stop the proxy first: one that runs puts them back within a second.
    #[arg(long)]
    remove: bool,
    /// The user that the proxy runs as, whose own traffic leaves. No container of the workload may be able to become it.
    #[arg(long, value_name = "UID", default_value_t = PROXY_UID, value_parser = clap::value_parser!(u32).range(1..))]
    uid: u32,
    /// The proxy's outbound port.
    #[arg(long, value_name = "PORT", default_value_t = OUTBOUND_PORT, value_parser = port())]
    outbound_port: u16,
    /// The proxy's inbound port.
    #[arg(long, value_name = "PORT", default_value_t = INBOUND_PORT, value_parser = port())]
    inbound_port: u16,
    /// Let connections from outside go straight to the workload: `ingress` rules then bind nobody.
    #[arg(long, conflicts_with = "inbound_port")]
    no_inbound: bool,
    /// The proxy's DNS port.
    #[arg(long, value_name = "PORT", default_value_t = DNS_PORT, value_parser = port())]
    dns_port: u16,
    /// Redirect DNS to local addresses too (127.0.0.53, say).
    #[arg(long)]
    loopback_dns: bool,
}

fn port() -> impl clap::builder::TypedValueParser<Value = u16> {
    clap::value_parser!(u16).range(1..)
}

impl InitCommand {
    /// Does what was asked. 0: done; 1: refused, with the reason on standard error.
    pub fn run(self) -> ExitCode {
        let outcome = if self.print {
            self.print_rules()
        } else if self.remove {
            remove_rules()
        } else {
            self.install_rules()
        };
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            // Whoever reads our output has seen enough.
            Err(InitError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(error) => {
                let mut text = format!("sidegate-proxy init: {error}");
                let mut cause = error.source();
                while let Some(source) = cause {
                    text = format!("{text}: {source}");
                    cause = source.source();
                }
                let _ = writeln!(io::stderr(), "{text}");
                ExitCode::FAILURE
            }
        }
    }

    fn spec(&self) -> Spec {
        Spec {
            outbound: self.outbound_port,
            inbound: (!self.no_inbound).then_some(self.inbound_port),
            dns: self.dns_port,
            exempt: Exempt::Uid(self.uid),
            loopback_dns: self.loopback_dns,
            ..Spec::sidecar(self.uid)
        }
    }

    fn print_rules(&self) -> Result<(), InitError> {
        let devices = links::outward().map_err(RedirectError::Devices)?;
        Ok(write!(io::stdout(), "{}", Plan::new(&self.spec(), &devices))?)
    }

    fn install_rules(&self) -> Result<(), InitError> {
        let installed = install(&mut Netlink::netfilter().map_err(InitError::Socket)?, &self.spec())?;
        // Before the first word, which a closed pipe refuses.
        let tuned = sysctl::tune();
        let mut out = io::stdout().lock();
        writeln!(
            out,
            "installed table inet sidegate: TCP to {}, DNS to {}, everything else refused; uid {} exempt",
            self.outbound_port, self.dns_port, self.uid
        )?;
        if self.no_inbound {
            writeln!(out, "arriving connections are not captured: `ingress` rules bind nobody")?;
        } else {
            writeln!(out, "arriving TCP to {}", self.inbound_port)?;
        }
        match installed.frames {
            FrameWall::Up(devices) => {
                writeln!(
                    out,
                    "installed table netdev sidegate: raw frames dropped on {}",
                    devices.join(", ")
                )?;
            }
            FrameWall::Unneeded => writeln!(out, "no device leads out: no frames to guard")?,
            FrameWall::Absent(refused) => writeln!(
                out,
                "warning: no second wall ({refused}: {}); a process with CAP_NET_RAW can send raw frames past the rules",
                refused.source
            )?,
        }
        tell_tuned(&tuned, &mut out)
    }
}

/// What the kernel settings of this namespace are good for, or what their absence costs.
fn tell_tuned(tuned: &Tuned, out: &mut impl Write) -> Result<(), InitError> {
    match &tuned.timestamps {
        Ok(()) => writeln!(out, "net.ipv4.tcp_timestamps: no stalls of short connections")?,
        Err(error) => writeln!(
            out,
            "warning: net.ipv4.tcp_timestamps=2 not set ({error}); some of many short connections may wait a second"
        )?,
    }
    match &tuned.reuse {
        Ok(()) => writeln!(out, "net.ipv4.tcp_tw_reuse: source ports are free again after a second")?,
        Err(error) => writeln!(
            out,
            "warning: net.ipv4.tcp_tw_reuse=1 not set ({error}); many short connections to one destination may run out \
             of source ports (limit-ports)"
        )?,
    }
    Ok(())
}

/// Said with every removal: whether a proxy runs here can't be told from the namespace alone.
const PUT_BACK: &str = "a sidegate-proxy that still runs here puts them back within a second: stop it first";

fn remove_rules() -> Result<(), InitError> {
    remove(&mut Netlink::netfilter().map_err(InitError::Socket)?)?;
    let mut out = io::stdout().lock();
    writeln!(out, "removed tables inet sidegate and netdev sidegate")?;
    Ok(writeln!(out, "{PUT_BACK}")?)
}

/// Why `init` failed.
#[derive(Debug, thiserror::Error)]
enum InitError {
    #[error(transparent)]
    Rules(#[from] RedirectError),
    #[error("opening a netfilter socket (is this a Linux kernel with nfnetlink?)")]
    Socket(#[source] io::Error),
    #[error("writing to standard output")]
    Output(#[from] io::Error),
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        init: InitCommand,
    }

    fn parse(line: &str) -> Result<Spec, clap::Error> {
        Line::try_parse_from(line.split(' ')).map(|line| line.init.spec())
    }

    #[test]
    fn the_defaults_are_those_of_a_sidecar() {
        assert_eq!(parse("init").expect("parses"), Spec::sidecar(PROXY_UID));
    }

    #[test]
    fn root_is_never_exempt_and_port_zero_is_no_port() {
        assert!(parse("init --uid 0").is_err());
        assert!(parse("init --dns-port 0").is_err());
        assert!(parse("init --print --remove").is_err());
    }

    #[test]
    fn inbound_connections_are_captured_unless_they_are_not_to_be() {
        assert_eq!(parse("init --inbound-port 16006").expect("parses").inbound, Some(16006));
        assert_eq!(parse("init --no-inbound").expect("parses").inbound, None);
        assert!(parse("init --no-inbound --inbound-port 16006").is_err());
    }
}
