//! `inbound`: what is done with connections towards the workload.

use serde::Serialize;
use sidegate_policy::document::Section;

/// What is done with connections towards the workload.
#[derive(Clone, Debug, Serialize)]
pub struct Inbound {
    /// They are captured and judged. Otherwise they go straight to the workload, and `ingress` rules bind nobody.
    pub capture: bool,
}

pub(super) fn read(root: &Section<'_, '_, '_>) -> Inbound {
    let section = root.section("inbound", &["capture"]);
    let section = section.as_ref();
    Inbound { capture: section.and_then(|inbound| inbound.boolean("capture")).unwrap_or(true) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sidegate_policy::Source;

    use crate::sidecar::Config;

    fn parse(rest: &str) -> Result<Config, usize> {
        let least = "apiVersion: sidegate.dev/v1\nkind: ProxyConfig\npolicies: [ p.yaml ]\n";
        let source = Source::new("proxy.yaml", format!("{least}{rest}"));
        Config::parse(&source, Path::new("")).map_err(|wrong| wrong.len())
    }

    #[test]
    fn capture_is_on_unless_it_is_turned_off() {
        for (text, on) in
            [("", true), ("inbound: { capture: true }", true), ("inbound: { capture: false }", false)]
        {
            assert_eq!(parse(text).map(|config| config.inbound.capture), Ok(on), "{text}");
        }
        assert_eq!(parse("inbound: { capture: maybe, colour: red }").map(|_| ()), Err(2));
    }
}
