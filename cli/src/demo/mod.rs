//! `sidegate demo`: the gate, judged by the far ends, on this machine alone.

mod app;
mod attempts;
mod pair;
mod place;
mod report;
mod world;

use std::{
    ffi::OsString,
    io::{self, BufRead, BufReader, IsTerminal, Write},
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags},
    process::Signal,
};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use sidegate_api::AccessRecord;
use sidegate_proxy::sys::signals::SignalSource;

use app::Told;
use place::Place;
use world::Seen;

/// See the gate at work: servers, a resolver, an attacker and an application, without root or network.
///
/// On a terminal the world stays up afterwards, to look around in until Ctrl-C.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// End after the scenario: 0 if every verdict was the expected one, else 1.
    #[arg(long)]
    once: bool,
    /// Be the application inside the gate.
    #[arg(long, hide = true, value_name = "ROOT")]
    app: Option<String>,
    /// Be the workload that answers in the second scene.
    #[arg(long, hide = true, value_name = "FOLDER")]
    workload: Option<PathBuf>,
    /// Be the application of the workload that asks in the second scene.
    #[arg(long, hide = true, value_name = "METHOD")]
    ask: Option<String>,
}

/// How long the record of an attempt may take once the application has told its outcome.
const RECORD_PATIENCE: Duration = Duration::from_secs(10);

/// Exit status when Ctrl-C came before the scenario was over.
const INTERRUPTED: u8 = 128 + 2;

/// Runs the demo.
pub(crate) fn run(args: &DemoArgs) -> ExitCode {
    let outcome = match (&args.app, &args.workload, &args.ask) {
        (Some(root), ..) => app::run(root).map(|()| Ended::AsExpected),
        (_, Some(folder), _) => pair::be_workload(folder).map(|()| Ended::AsExpected),
        (.., Some(method)) => pair::be_web(method).map(|()| Ended::AsExpected),
        _ => show(args.once),
    };
    match outcome {
        Ok(Ended::AsExpected) => ExitCode::SUCCESS,
        Ok(Ended::Otherwise) => ExitCode::from(1),
        Ok(Ended::Interrupted) => ExitCode::from(INTERRUPTED),
        Err(error) => {
            eprintln!("sidegate: the demo can't run here: {error}; `sidegate run -- true` tells more");
            ExitCode::from(3)
        }
    }
}

/// How a show ended.
enum Ended {
    AsExpected,
    Otherwise,
    Interrupted,
}

/// The whole show.
fn show(once: bool) -> io::Result<Ended> {
    world::enter()?;
    // Before there are threads, which inherit it: Ctrl-C is read, so that nothing is left behind.
    let stop = SignalSource::new(&[Signal::INT.as_raw(), Signal::TERM.as_raw(), Signal::HUP.as_raw()])?;
    let seen = Arc::new(Seen::default());
    let identity = Identity::make()?;
    world::populate(&seen, &identity.tls)?;

    let stays = !once && io::stdout().is_terminal();
    let mut place = Place::make(&identity.pem)?;
    report::opening(attempts::POLICY)?;
    let scenario = play(&identity.root, &mut place);
    if stop.next()?.is_some() {
        return Ok(Ended::Interrupted);
    }
    let expected = scenario? & report::proof(&seen)?;
    let expected = pair::play()? & expected;
    if stop.next()?.is_some() {
        return Ok(Ended::Interrupted);
    }
    if stays {
        report::places(&place)?;
        await_stop(&stop)?;
    } else if !once {
        report::no_terminal()?;
    }
    report::next()?;
    Ok(if expected { Ended::AsExpected } else { Ended::Otherwise })
}

/// Every attempt, one after the other; true when each went as expected.
fn play(root: &str, place: &mut Place) -> io::Result<bool> {
    let mut child = start(root, place)?;
    let lines = listen(&mut child)?;
    let mut arrived = Arrived::default();
    let mut expected = true;
    for (number, attempt) in attempts::all().iter().enumerate() {
        let Some((told, record)) = await_outcome(&lines, number, attempt, &mut arrived) else {
            return Err(io::Error::other(format!("the application ended before attempt {}", number + 1)));
        };
        expected &= report::row(number, attempt, &told, record.as_ref())?;
    }
    child.wait()?;
    arrived.rest(&lines);
    arrived.kept.iter().try_for_each(|line| place.keep(line))?;
    Ok(expected)
}

/// The origin's certificate and key.
struct Identity {
    tls: Arc<ServerConfig>,
    /// The certificate's DER in hexadecimal, and its PEM.
    root: String,
    pem: String,
}

impl Identity {
    /// Fresh ones.
    fn make() -> io::Result<Identity> {
        let names = ["api", "old", "plain", "seen"].map(|name| format!("{name}.demo.test"));
        let made = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
        let root = made.cert.der().iter().map(|byte| format!("{byte:02x}")).collect();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(io::Error::other)?;
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .map_err(io::Error::other)?;
        Ok(Identity { tls: Arc::new(config), root, pem: made.cert.pem() })
    }
}

/// Starts the application behind the gate: the same `sidegate run` as anybody's.
fn start(root: &str, place: &Place) -> io::Result<Child> {
    let own = std::env::current_exe()?;
    let resolver = format!("{}:53", world::RESOLVER);
    let mut roots = OsString::from("demo=");
    roots.push(place.path("origin.pem"));
    let mut child = Command::new(&own)
        .args(["run", "--quiet", "--policy", "-", "--access-log", "-", "--resolver", &resolver, "--roots"])
        .arg(roots)
        .arg("--")
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
    /// Every record, as it was written.
    kept: Vec<String>,
}

impl Arrived {
    fn take(&mut self, line: String) {
        if let Ok(record) = serde_json::from_str(&line) {
            self.records.push(record);
            self.kept.push(line);
        } else if let Ok(told) = serde_json::from_str(&line) {
            self.told.push(told);
        }
    }

    /// What still comes after the last word, until the output ends.
    fn rest(&mut self, lines: &mpsc::Receiver<String>) {
        while let Ok(line) = lines.recv_timeout(RECORD_PATIENCE) {
            self.take(line);
        }
    }
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
        arrived.take(line);
    }
}

fn await_stop(stop: &SignalSource) -> io::Result<()> {
    while stop.next()?.is_none() {
        match rustix::event::poll(&mut [PollFd::new(stop, PollFlags::IN)], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
