//! Denials as they happen, one compact line each on standard error.

use std::io::{IsTerminal, Write};

use sidegate_api::AccessRecord;
use sidegate_policy::Reason;
use sidegate_proxy::access_log::Sink;

use super::wording;

/// Writes one line for each denial and would-be denial.
pub(super) struct Explain<W: Write + Send> {
    out: W,
    colour: bool,
}

impl Explain<std::io::Stderr> {
    /// On standard error; coloured on a terminal, unless `NO_COLOR` is set.
    pub(super) fn on_stderr() -> Self {
        Explain { out: std::io::stderr(), colour: wants_colour(&std::io::stderr()) }
    }
}

impl<W: Write + Send> Sink for Explain<W> {
    fn record(&mut self, record: &AccessRecord) {
        if record.verdict == "allowed" {
            return;
        }
        let (on, off) = if self.colour { ("\x1b[31m", "\x1b[0m") } else { ("", "") };
        let clock = record.time.get(11..23).unwrap_or(&record.time);
        // An explanation brings its own fix.
        let fix = match record.explanation {
            None => Reason::from_word(&record.reason).map_or("", Reason::fix),
            Some(_) => "",
        };
        let line = format!(
            "sidegate: {clock} {on}{}{off} {} ({}): {}{}{fix}\n",
            record.verdict,
            wording::destination(record),
            record.reason,
            wording::why(record),
            if fix.is_empty() { "" } else { " " },
        );
        // One write, so that the line is not torn by the command's own output. A closed standard error is nobody's fault here.
        let _ = self.out.write_all(line.as_bytes());
    }
}

/// Whether a stream should be coloured. <https://no-color.org>
pub(crate) fn wants_colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::wording::tests::denied;

    #[test]
    fn a_denial_is_one_plain_line_with_its_fix() {
        let mut explain = Explain { out: Vec::new(), colour: false };
        explain.record(&denied("evil.example", 443));
        let mut allowed = denied("good.example", 443);
        allowed.verdict = "allowed".into();
        explain.record(&allowed);
        assert_eq!(
            String::from_utf8(explain.out).unwrap(),
            "sidegate: 10:11:12.345 denied tls evil.example:443 (no-rule): No rule allows it. \
             Add an allow rule for this destination.\n"
        );
    }
}
