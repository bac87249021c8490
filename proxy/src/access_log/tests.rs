use std::{
    io::{self, Write},
    sync::{Arc, Barrier, Mutex, mpsc},
    time::Duration,
};

use sidegate_api::{AccessRecord, CloseReason, access_record::SCHEMA};

use super::{AccessLog, JsonLines, Sink};

fn record(host: &str) -> AccessRecord {
    AccessRecord {
        schema: SCHEMA.into(),
        time: "2026-11-24T08:00:00.000Z".into(),
        direction: "egress".into(),
        workload: None,
        source: None,
        original_dst: None,
        upstream: None,
        host: Some(host.into()),
        protocol: "tls".into(),
        tls: None,
        dns: None,
        http: None,
        verdict: "allowed".into(),
        policy: None,
        rule: None,
        reason: "rule-allows".into(),
        explanation: None,
        generation: 1,
        bytes_sent: 0,
        bytes_received: 0,
        duration_ms: 0.0,
        close_reason: CloseReason::Done,
    }
}

/// Hands every record on; waits at a barrier before the first when asked to.
struct Gathering {
    to: mpsc::Sender<String>,
    gate: Option<Arc<Barrier>>,
}

impl Sink for Gathering {
    fn record(&mut self, record: &AccessRecord) {
        if let Some(gate) = self.gate.take() {
            gate.wait();
            gate.wait();
        }
        self.to.send(record.host.clone().unwrap_or_default()).unwrap();
    }
}

#[test]
fn finish_waits_for_every_record_in_order() {
    let (to, from) = mpsc::channel();
    let log = AccessLog::start(vec![Box::new(Gathering { to, gate: None })]);
    for n in 0..500 {
        log.write(record(&n.to_string()));
    }
    log.finish();
    let seen: Vec<String> = from.try_iter().collect();
    assert_eq!(seen, (0..500).map(|n| n.to_string()).collect::<Vec<_>>());
    log.finish();
}

#[test]
fn a_full_queue_drops_and_counts_without_waiting() {
    let (to, from) = mpsc::channel();
    let gate = Arc::new(Barrier::new(2));
    let log = AccessLog::with_capacity(vec![Box::new(Gathering { to, gate: Some(gate.clone()) })], 4);
    log.write(record("first"));
    gate.wait();
    for n in 0..10 {
        log.write(record(&n.to_string()));
    }
    assert_eq!(log.dropped(), 6);
    gate.wait();
    log.finish();
    assert_eq!(from.try_iter().collect::<Vec<_>>(), ["first", "0", "1", "2", "3"]);
}

#[test]
fn the_last_clone_gone_the_rest_is_written_and_the_thread_ends() {
    let (to, from) = mpsc::channel();
    let log = AccessLog::start(vec![Box::new(Gathering { to, gate: None })]);
    log.write(record("last"));
    drop(log);
    assert_eq!(from.iter().collect::<Vec<_>>(), ["last"]);
}

#[test]
fn a_panicking_sink_does_not_silence_the_others() {
    struct Panicking;
    impl Sink for Panicking {
        fn record(&mut self, _: &AccessRecord) {
            panic!("sink");
        }
    }
    let (to, from) = mpsc::channel();
    let log = AccessLog::start(vec![Box::new(Panicking), Box::new(Gathering { to, gate: None })]);
    log.write(record("a"));
    log.finish();
    log.write(record("b"));
    log.finish();
    assert_eq!(from.try_iter().collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn a_rotated_file_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let mut sink = JsonLines::file(&path).unwrap();
    sink.record(&record("before"));
    sink.flush();
    std::fs::rename(&path, dir.path().join("access.log.1")).unwrap();
    sink.forget_last_look();
    sink.record(&record("after"));
    sink.flush();
    let text = std::fs::read_to_string(&path).unwrap();
    let line: AccessRecord = serde_json::from_str(text.trim_end()).unwrap();
    assert_eq!(line.host.as_deref(), Some("after"));
}

/// A disk with room for a number of bytes.
#[derive(Clone)]
struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut disk = self.0.lock().unwrap();
        let count = bytes.len().min(disk.1);
        if count == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.0.extend_from_slice(&bytes[..count]);
        disk.1 -= count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_damages_one_line_at_most() {
    let disk = Disk(Arc::new(Mutex::new((Vec::new(), 100))));
    let mut sink = JsonLines::writer(disk.clone());
    for host in ["torn", "lost"] {
        sink.record(&record(host));
        sink.flush();
    }
    disk.0.lock().unwrap().1 = 10_000;
    sink.record(&record("whole"));
    sink.flush();
    let bytes = disk.0.lock().unwrap().0.clone();
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let hosts: Vec<Option<String>> = lines
        .iter()
        .map(|line| serde_json::from_slice::<AccessRecord>(line).ok().and_then(|r| r.host))
        .collect();
    assert_eq!(hosts, [None, Some("whole".into()), None]);
}

#[test]
fn a_stuck_sink_does_not_keep_whoever_has_patience_for_it() {
    let (to, from) = mpsc::channel();
    let gate = Arc::new(Barrier::new(2));
    let log = AccessLog::start(vec![Box::new(Gathering { to, gate: Some(Arc::clone(&gate)) })]);
    log.write(record("a"));
    gate.wait();
    assert!(!log.finish_within(Duration::from_millis(1)));
    gate.wait();
    assert!(log.finish_within(Duration::from_secs(60)));
    assert_eq!(from.try_recv().as_deref(), Ok("a"));
}
