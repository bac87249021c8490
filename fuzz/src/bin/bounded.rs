//! A bounded run of the targets on any stable toolchain: seeds, then deterministic mutations of them.
#![forbid(unsafe_code)]

use std::{
    cell::RefCell,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Mutex,
    time::{Duration, Instant},
};

use sidegate_fuzz::{
    TARGETS, Target,
    mutate::{Dice, mutate},
};

const USAGE: &str = "usage: bounded [--seconds N | --iterations N] [--seed N] [TARGET|TARGET=FILE]...";
/// One input may not take longer: that would be a way to stall the proxy.
const PATIENCE: Duration = Duration::from_secs(2);

struct Options {
    seconds: u64,
    iterations: u64,
    seed: u64,
    targets: Vec<(&'static str, Target, Option<PathBuf>)>,
}

struct Outcome {
    executions: u64,
    seconds: f64,
    slowest: Duration,
    failure: Option<String>,
}

thread_local! {
    /// What the last panic of this thread said.
    static LAST_WORDS: RefCell<String> = const { RefCell::new(String::new()) };
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(fault) => {
            eprintln!("{fault}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    panic::set_hook(Box::new(|panic| LAST_WORDS.set(panic.to_string())));
    let waiting = Mutex::new(options.targets.iter());
    let failed = Mutex::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(options.targets.len());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((name, target, file)) = next(&waiting) {
                    let outcome = run(name, *target, file.as_deref(), &options);
                    report(name, &outcome);
                    *failed.lock().expect("no panic in between") += usize::from(outcome.failure.is_some());
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no panic in between");
    println!("fuzz: {} passed, {failed} failed", options.targets.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn next<T>(waiting: &Mutex<impl Iterator<Item = T>>) -> Option<T> {
    waiting.lock().expect("no panic in between").next()
}

fn report(name: &str, outcome: &Outcome) {
    let Outcome { executions, seconds, slowest, failure } = outcome;
    let word = if failure.is_some() { "FAILED" } else { "ok" };
    println!(
        "{name:<16} {word:<6} {executions:>9} executions in {seconds:.1} s, slowest {:.1} ms",
        slowest.as_secs_f64() * 1e3
    );
    if let Some(failure) = failure {
        println!("{failure}");
    }
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { seconds: 5, iterations: u64::MAX, seed: 1, targets: Vec::new() };
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let value = arguments.next().and_then(|value| value.parse().ok());
            value.ok_or_else(|| format!("{argument} needs a number"))
        };
        match argument.as_str() {
            "--seconds" => options.seconds = number()?,
            "--iterations" => (options.iterations, options.seconds) = (number()?, u64::from(u32::MAX)),
            "--seed" => options.seed = number()?,
            _ => {
                let (wanted, file) = argument
                    .split_once('=')
                    .map_or((&*argument, None), |(name, file)| (name, Some(file.into())));
                let (name, target) = TARGETS
                    .iter()
                    .find(|(name, _)| *name == wanted)
                    .ok_or_else(|| format!("no target is called {wanted}"))?;
                options.targets.push((name, *target, file));
            }
        }
    }
    if options.targets.is_empty() {
        options.targets = TARGETS.iter().map(|(name, target)| (*name, *target, None)).collect();
    }
    Ok(options)
}

/// Runs one input, or the seeds and then mutations until the bound.
fn run(name: &str, target: Target, file: Option<&Path>, options: &Options) -> Outcome {
    let started = Instant::now();
    let mut outcome = Outcome { executions: 0, seconds: 0.0, slowest: Duration::ZERO, failure: None };
    let seeds = match file.map_or_else(|| seeds_of(name), |file| Ok(vec![fs::read(file)?])) {
        Ok(seeds) if !seeds.is_empty() => seeds,
        Ok(_) => return Outcome { failure: Some(format!("seeds/{name} is empty")), ..outcome },
        Err(error) => return Outcome { failure: Some(format!("the seeds of {name}: {error}")), ..outcome },
    };
    let mut dice = Dice::new(options.seed);
    let bound = if file.is_some() { 1 } else { options.iterations.max(seeds.len() as u64) };
    for round in 0..bound {
        let input = match usize::try_from(round).ok().and_then(|round| seeds.get(round)) {
            Some(seed) => seed.clone(),
            None => mutate(&seeds, &mut dice),
        };
        let began = Instant::now();
        let survived = panic::catch_unwind(AssertUnwindSafe(|| target(&input))).is_ok();
        let took = began.elapsed();
        outcome.executions += 1;
        outcome.slowest = outcome.slowest.max(took);
        if !survived || took > PATIENCE {
            let words = if survived { format!("took {took:?}") } else { LAST_WORDS.take() };
            let words: String = words.chars().take(2000).collect();
            outcome.failure = Some(format!("{words}\n{}", keep(name, &input)));
            break;
        }
        if started.elapsed().as_secs() >= options.seconds {
            break;
        }
    }
    outcome.seconds = started.elapsed().as_secs_f64();
    outcome
}

fn seeds_of(name: &str) -> io::Result<Vec<Vec<u8>>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(name);
    let mut files: Vec<_> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    files.sort();
    files.iter().map(fs::read).collect()
}

/// Writes the input that failed, and says how to run it again.
fn keep(name: &str, input: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts");
    let file = folder.join(format!("{name}-{:016x}", hasher.finish()));
    match fs::create_dir_all(&folder).and_then(|()| fs::write(&file, input)) {
        Ok(()) => format!("again: fuzz/run {name}={}", file.display()),
        Err(error) => format!("the input could not be kept ({error}): {}", input.escape_ascii()),
    }
}
