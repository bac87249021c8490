//! `sidegate demo`: the gate, judged by the far ends, on this machine alone.

mod app;
mod attempts;
mod report;
mod world;

use std::{
    io::{self, BufRead, BufReader, IsTerminal, Write},
    process::{Child, Command, ExitCode, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use sidegate_api::AccessRecord;

use app::Told;
use world::Seen;

/// See the gate at work: two servers, a resolver, an attacker and an application, without root or network.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// End after the scenario: 0 if every verdict was the expected one, else 1.
    #[arg(long)]
    once: bool,
    /// Be the application inside the gate.
    #[arg(long, hide = true, value_name = "ROOT")]
    app: Option<String>,
}

/// How long the record of an attempt may take once the application has told its outcome.
const RECORD_PATIENCE: Duration = Duration::from_secs(10);

/// Runs the demo.
pub(crate) fn run(args: &DemoArgs) -> ExitCode {
    let outcome = match &args.app {
        Some(root) => app::run(root).map(|()| true),
        None => show(args.once),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("sidegate: the demo can't run here: {error}; `sidegate run -- true` tells more");
            ExitCode::from(3)
        }
    }
}

/// The whole show; true when everything went as expected.
fn show(once: bool) -> io::Result<bool> {
    world::enter()?;
    let seen = Arc::new(Seen::default());
    let (tls, root) = identity()?;
    world::populate(&seen, &tls)?;

    report::opening(attempts::POLICY)?;
    let lines = listen(&mut start(&root)?)?;
    let mut arrived = Arrived::default();
    let mut expected = true;
    for (number, attempt) in attempts::all().iter().enumerate() {
        let Some((told, record)) = await_outcome(&lines, number, attempt, &mut arrived) else {
            return Err(io::Error::other(format!("the application ended before attempt {}", number + 1)));
        };
        expected &= report::row(number, attempt, &told, record.as_ref())?;
    }
    expected &= report::proof(&seen)?;
    if !once && io::stdout().is_terminal() {
        stay()?;
    }
    Ok(expected)
}

/// A fresh certificate for the origin, and its DER in hexadecimal.
fn identity() -> io::Result<(Arc<ServerConfig>, String)> {
    let names = ["api.demo.test", "old.demo.test"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
    let root = made.cert.der().iter().map(|byte| format!("{byte:02x}")).collect();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(io::Error::other)?;
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .map_err(io::Error::other)?;
    Ok((Arc::new(config), root))
}

/// Starts the application behind the gate: the same `sidegate run` as anybody's.
fn start(root: &str) -> io::Result<Child> {
    let own = std::env::current_exe()?;
    let resolver = format!("{}:53", world::RESOLVER);
    let mut child = Command::new(&own)
        .args(["run", "--quiet", "--policy", "-", "--access-log", "-", "--resolver", &resolver, "--"])
        .arg(&own)
        .args(["demo", "--app", root])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(attempts::POLICY.as_bytes())?;
    }
    Ok(child)
}

/// The application's words and the proxy's records, line by line.
fn listen(child: &mut Child) -> io::Result<mpsc::Receiver<String>> {
    let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().name("output".to_owned()).spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}

/// Words and records that arrived and were not yet asked for: the application does not wait for the records.
#[derive(Default)]
struct Arrived {
    told: Vec<Told>,
    records: Vec<AccessRecord>,
}

/// Waits for the application's word on an attempt and for the record that belongs to it; `None`: no word came.
fn await_outcome(
    lines: &mpsc::Receiver<String>,
    number: usize,
    attempt: &attempts::Attempt,
    arrived: &mut Arrived,
) -> Option<(Told, Option<AccessRecord>)> {
    loop {
        let told = arrived.told.iter().position(|told| told.attempt == number);
        let record = arrived.records.iter().position(|record| report::belongs(record, attempt));
        match (told, record) {
            (Some(told), Some(record)) => {
                return Some((arrived.told.remove(told), Some(arrived.records.remove(record))));
            }
            (Some(told), None) if attempt.expected.is_none() => {
                return Some((arrived.told.remove(told), None));
            }
            _ => {}
        }
        let Ok(line) = lines.recv_timeout(RECORD_PATIENCE) else {
            return told.map(|told| (arrived.told.remove(told), None));
        };
        if let Ok(record) = serde_json::from_str(&line) {
            arrived.records.push(record);
        } else if let Ok(told) = serde_json::from_str(&line) {
            arrived.told.push(told);
        }
    }
}

/// Stays up until Ctrl-C, with the world to look at.
fn stay() -> io::Result<()> {
    let pid = rustix::process::getpid().as_raw_nonzero();
    println!("\nThe world stays up until Ctrl-C. From another terminal:");
    println!(
        "  nsenter --preserve-credentials -U -n -t {pid} sidegate run --resolver {}:53 --explain \\",
        world::RESOLVER
    );
    println!("    -- curl -k https://api.demo.test/          (denied: no policy; write one and try again)");
    io::stdout().flush()?;
    loop {
        thread::park();
    }
}
