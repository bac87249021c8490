//! The `sidegate-proxy` command.
#![deny(unsafe_code)]

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{Args, CommandFactory, Parser, Subcommand};
use sidegate_policy::Diagnostic;
use sidegate_proxy::{
    redirect::InitCommand,
    sidecar::{self, Config, StartError, errors, health, logging},
};

/// The sidecar: judges what its workload sends, by a policy.
#[derive(Debug, Parser)]
#[command(name = "sidegate-proxy", version, arg_required_else_help = true, after_help = STATUS)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Serve),
    Init(InitCommand),
    CheckConfig(CheckConfig),
    Healthcheck(Healthcheck),
    /// Print a completion script for a shell.
    Completions {
        /// bash, zsh, fish, elvish or powershell.
        shell: clap_complete::Shell,
    },
}

/// Serve until SIGTERM or SIGINT, then drain. SIGHUP reads the policies again, as does any change of their files.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sidegate-proxy serve --config /etc/sidegate/proxy.yaml")]
struct Serve {
    /// The configuration file, YAML or JSON.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Say everything that is wrong with a configuration and its policies, or what they come to.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sidegate-proxy check-config proxy.yaml && echo fine")]
struct CheckConfig {
    /// The configuration file, YAML or JSON.
    #[arg(value_name = "FILE")]
    config: PathBuf,
}

/// Ask a running proxy whether it is ready.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sidegate-proxy healthcheck --timeout 2")]
struct Healthcheck {
    /// The readiness address.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:15021")]
    address: SocketAddr,
    /// Seconds to wait for the answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
}

const STATUS: &str = "\
Exit status:
  0  yes, done
  1  a negative answer: invalid, not ready, could not start
  2  wrong usage
  3  nobody answers";

const NO: u8 = 1;
const UNREACHABLE: u8 = 3;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => serve(&args),
        Command::Init(command) => command.run(),
        Command::CheckConfig(args) => check_config(&args),
        Command::Healthcheck(args) => healthcheck(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "sidegate-proxy", &mut script);
            print_all(&script)
        }
    }
}

fn serve(args: &Serve) -> ExitCode {
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(diagnostics) => return refuse(&diagnostics),
    };
    logging::start(config.log);
    match sidecar::serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(StartError::Policies(diagnostics)) => refuse(&diagnostics),
        Err(error) => {
            tracing::error!("not started: {error}");
            ExitCode::from(NO)
        }
    }
}

fn check_config(args: &CheckConfig) -> ExitCode {
    let checked = Config::load(&args.config).and_then(|config| sidecar::check(&config));
    match checked {
        Ok(checked) => {
            for warning in &checked.warnings {
                eprintln!("warning: {warning}");
            }
            print_all(format!("ok\n{}\n", checked.summary).as_bytes())
        }
        Err(diagnostics) => refuse(&diagnostics),
    }
}

fn healthcheck(args: &Healthcheck) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let health = match runtime {
        Ok(runtime) => runtime.block_on(health::ask(args.address, Duration::from_secs(args.timeout))),
        Err(error) => health::Health::Unreachable(error.to_string()),
    };
    match health {
        health::Health::Ready => ExitCode::SUCCESS,
        health::Health::NotReady(why) => {
            eprintln!("not ready: {why}");
            ExitCode::from(NO)
        }
        health::Health::Unreachable(why) => {
            eprintln!("unreachable: {why}");
            ExitCode::from(UNREACHABLE)
        }
    }
}

/// A reader that has seen enough and closed its end is no failure.
fn print_all(bytes: &[u8]) -> ExitCode {
    match io::stdout().write_all(bytes) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("standard output: {error}");
            ExitCode::from(NO)
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Every diagnostic, and how many there are.
fn refuse(diagnostics: &[Diagnostic]) -> ExitCode {
    for diagnostic in diagnostics {
        eprintln!("{diagnostic}");
    }
    eprintln!("{}", errors(diagnostics.len()));
    ExitCode::from(NO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
