//! Policies that change while the proxy runs: applied whole or refused whole, never in between.

use std::{pin::Pin, sync::Arc, time::Duration};

use sidegate_policy::{CompileOptions, Diagnostic, Generation, Source};
use tokio::{signal::unix::Signal, time::Interval};

use super::{
    inbound,
    kernel::Kernel,
    policies::{Contents, Loaded, PolicyFiles},
    status::{NONE_APPLIES, ReloadResult, Status},
    watch::Watch,
};
use crate::{redirect::links, server::Gate};

/// Attempts to apply policies, by `result`: `applied` or `refused`.
pub const RELOADS: &str = "sidegate_policy_reload_total";

/// How old the count of refused packets may be.
const COUNT: Duration = Duration::from_secs(2);

/// Follows the policy files of a running gate.
pub(super) struct Reloader {
    pub(super) gate: Arc<Gate>,
    pub(super) status: Arc<Status>,
    pub(super) files: PolicyFiles,
    /// What compiling needs; the generation is set anew each time.
    pub(super) options: CompileOptions,
    /// What was tried last, so that a touched file is no change.
    pub(super) tried: Contents,
    pub(super) kernel: Kernel,
    /// Inbound connections are captured.
    pub(super) captured: bool,
}

impl Reloader {
    /// Follows the files and SIGHUP for as long as it is polled.
    pub(super) async fn run(mut self, mut watch: Watch, mut hangup: Signal) {
        let mut count = tokio::time::interval(COUNT);
        loop {
            let asked = {
                // Not begun anew after each count: an event that it has taken in must not be forgotten.
                let changed = std::pin::pin!(watch.changed());
                self.asked(changed, &mut hangup, &mut count).await
            };
            let files = self.files.clone();
            let Ok(contents) = tokio::task::spawn_blocking(move || files.read()).await else { continue };
            if asked || contents != self.tried {
                self.tried = contents.clone();
                self.apply(contents).await;
            }
        }
    }

    /// Waits for a change or a wish, and counts meanwhile. Whether it was a wish.
    async fn asked(
        &mut self,
        mut changed: Pin<&mut impl Future<Output = ()>>,
        hangup: &mut Signal,
        count: &mut Interval,
    ) -> bool {
        loop {
            tokio::select! {
                () = &mut changed => return false,
                news = hangup.recv() => return news.is_some(),
                _ = count.tick() => self.kernel.count_refused(),
            }
        }
    }

    async fn apply(&self, contents: Contents) {
        let generation = Generation(self.gate.policies.current().generation().0 + 1);
        let mut options = CompileOptions { generation, ..self.options.clone() };
        match links::local_addresses() {
            Ok(found) => options.local_addresses = found,
            Err(error) => {
                tracing::warn!(%error, "local addresses can't be listed; those of the start are used")
            }
        }
        let compiled = tokio::task::spawn_blocking(move || contents.compile(&options)).await;
        let compiled = compiled.unwrap_or_else(|_| Err(vec![crashed()]));
        // Datagrams first: a policy that the kernel does not follow must not seem to be in force.
        let followed = compiled.and_then(|loaded| {
            self.kernel.follow(&self.gate.policies.current(), &loaded.set)?;
            Ok(loaded)
        });
        match followed {
            Ok(loaded) => self.accept(loaded),
            Err(diagnostics) => self.refuse(diagnostics),
        }
    }

    fn accept(&self, loaded: Loaded) {
        let generation = loaded.set.generation();
        super::tell_wanting(&self.gate, &loaded.set);
        let documents = loaded.documents.len();
        let applying = loaded.documents.iter().filter(|document| document.applies).count();
        self.gate.policies.replace(loaded.set);
        self.status.applied(generation, loaded.documents.clone());
        counted(ReloadResult::Applied);
        inbound::tell(&loaded.documents, self.captured);
        // Told last: whoever reads it may rely on it.
        tracing::info!(generation = generation.0, documents, applying, "new policies judge from now on");
        if applying == 0 {
            tracing::error!("not ready: {NONE_APPLIES}");
        }
    }

    fn refuse(&self, diagnostics: Vec<Diagnostic>) {
        let errors = diagnostics.len();
        for diagnostic in &diagnostics {
            let Diagnostic { code, file, line, column, message, fix, .. } = diagnostic;
            tracing::error!(code, %file, line, column, fix, "policy refused: {message}");
        }
        self.status.refused(diagnostics);
        counted(ReloadResult::Refused);
        let generation = self.gate.policies.current().generation().0;
        tracing::error!(errors, generation, "new policies were refused whole; the old ones judge on");
    }
}

/// Counts one attempt.
pub(super) fn counted(result: ReloadResult) {
    metrics::counter!(RELOADS, "result" => result.word()).increment(1);
}

fn crashed() -> Diagnostic {
    let source = Source::new("policies", "");
    Diagnostic::new(
        &source,
        "internal",
        0..0,
        "the policies could not be compiled",
        "Please report it with the log.",
    )
}
