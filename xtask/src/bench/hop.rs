//! What a call costs more through the gateway than without it.

use std::process::Stdio;

use anyhow::Context as _;

use super::Figure;
use crate::shell::program;

/// The test that measures; it has gateway, service and client in one process.
const TEST: &str = "hop::the_hop_of_a_call_of_a_kibibyte";

/// The hop of a unary RPC of 1 KiB, by REST and by native gRPC.
pub(super) fn figures() -> anyhow::Result<Vec<Figure>> {
    let cargo = [
        "test",
        "--quiet",
        "--profile",
        "quick",
        "-p",
        "ferroflow-gateway",
    ];
    let test = [
        "--test",
        "it",
        "--",
        "--ignored",
        "--exact",
        "--nocapture",
        TEST,
    ];
    let output = program(env!("CARGO"), &[&cargo[..], &test[..]].concat())
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    anyhow::ensure!(output.status.success(), "{TEST} failed: {text}");
    let (direct, grpc, rest) = times(&text).with_context(|| format!("{TEST} printed {text}"))?;
    let figure = |what, through: f64| {
        let more = through - direct;
        Figure {
            what,
            ours: format!("+{more:.0} µs p50 ({through:.0} µs)"),
            peer: format!("+150 µs; {direct:.0} µs direct"),
            ratio: format!("{:.2}", more / 150.0),
            target: "≤ 1",
        }
    };
    Ok(vec![
        figure("the gateway's hop, REST, 1 KiB", rest),
        figure("the gateway's hop, gRPC, 1 KiB", grpc),
    ])
}

/// Direct, through the gateway by gRPC, and by REST, in microseconds.
fn times(text: &str) -> Option<(f64, f64, f64)> {
    let line = text.lines().find_map(|line| line.split("hop: ").nth(1))?;
    let time = |name: &str| {
        let part = line.split(", ").find_map(|part| part.strip_prefix(name))?;
        part.trim().strip_suffix("us")?.trim().parse().ok()
    };
    Some((time("direct")?, time("grpc")?, time("rest")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_test_prints_is_read() {
        let text =
            "running 1 test\ntest x ... hop: direct 90.5 us, grpc 180.0 us, rest 200.25 us\n";
        assert_eq!(times(text), Some((90.5, 180.0, 200.25)));
        assert_eq!(times("hop: direct 90.5 us"), None);
        assert_eq!(times(""), None);
    }
}
