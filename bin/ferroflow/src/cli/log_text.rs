//! Logs for people: whole lines, each with its task, without what the SDK's bootstrap prints.

use std::collections::VecDeque;
use std::io::IsTerminal as _;

use ferroflow_gateway::log_noise::Filter;

use super::controls;
use super::output::{bytes, coloured, printable};

/// What of control sequences is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Controls {
    /// Everything: it goes to a file or another program.
    All,
    /// Colours: it goes to a terminal.
    Colours,
    /// Nothing.
    None,
}

impl Controls {
    /// What standard output is for.
    pub(super) fn of_stdout() -> Self {
        if !std::io::stdout().is_terminal() {
            Self::All
        } else if coloured() {
            Self::Colours
        } else {
            Self::None
        }
    }
}

/// Turns the pieces of a log as they come into lines as they are shown.
pub(super) struct LineFormatter {
    /// Before every line.
    prefix: String,
    /// None to leave nothing out.
    filter: Option<Filter>,
    controls: Controls,
    /// The beginning of a line whose end has not come.
    partial: Vec<u8>,
}

impl LineFormatter {
    pub(super) fn new(prefix: String, raw: bool, controls: Controls) -> Self {
        Self {
            prefix,
            filter: (!raw).then(Filter::default),
            controls,
            partial: Vec::new(),
        }
    }

    /// The lines that `piece` completes.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Vec<Vec<u8>> {
        self.partial.extend_from_slice(piece);
        let mut lines = Vec::new();
        while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
            let rest = self.partial.split_off(end + 1);
            let line = std::mem::replace(&mut self.partial, rest);
            lines.extend(self.render(line));
        }
        lines
    }

    /// What is left when nothing more comes.
    pub(super) fn finish(&mut self) -> Option<Vec<u8>> {
        let mut line = std::mem::take(&mut self.partial);
        if line.is_empty() {
            return None;
        }
        line.push(b'\n');
        self.render(line)
    }

    fn render(&mut self, mut line: Vec<u8>) -> Option<Vec<u8>> {
        if let Some(filter) = &mut self.filter {
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches(['\n', '\r']);
            let output = filter.output(text)?;
            // A line of which nothing is left out keeps its bytes, be they text or not.
            if output.len() < text.len() {
                line = format!("{output}\n").into_bytes();
            }
        }
        if self.controls != Controls::All {
            let text = String::from_utf8_lossy(&line);
            line = controls::strip_controls(&text, self.controls == Controls::Colours).into_bytes();
        }
        Some([self.prefix.as_bytes(), line.as_slice()].concat())
    }
}

/// The last lines of a text, without noise and without what steers terminals.
pub(super) fn filter_log(text: &str) -> Vec<String> {
    let mut filter = Filter::default();
    let kept = text.lines().filter_map(|line| filter.output(line));
    kept.map(printable).collect()
}

/// Prints lines as they come, or the last ones of them.
pub(super) struct Printer {
    lines: LineFormatter,
    /// With `--tail`: how many, and those of what was there at the beginning.
    tail: Option<(usize, VecDeque<Vec<u8>>)>,
}

impl Printer {
    pub(super) fn new(lines: LineFormatter, tail: Option<usize>) -> Self {
        Self {
            lines,
            tail: tail.map(|count| (count, VecDeque::new())),
        }
    }

    pub(super) fn print(&mut self, piece: &[u8]) -> anyhow::Result<()> {
        let lines = self.lines.feed(piece);
        self.push(lines)
    }

    fn push(&mut self, lines: Vec<Vec<u8>>) -> anyhow::Result<()> {
        match &mut self.tail {
            None => bytes(&lines.concat()),
            Some((count, kept)) => {
                kept.extend(lines);
                kept.drain(..kept.len().saturating_sub(*count));
                Ok(())
            }
        }
    }

    /// What was there at the beginning has come: prints its last lines, and from now on all.
    pub(super) fn flush_tail(&mut self) -> anyhow::Result<()> {
        match self.tail.take() {
            Some((_, kept)) => bytes(&Vec::from(kept).concat()),
            None => Ok(()),
        }
    }

    /// Nothing more comes.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        let last = self.lines.finish();
        self.push(last.into_iter().collect())?;
        self.flush_tail()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_and_carry_their_task() {
        let mut lines = LineFormatter::new("[a] ".to_owned(), false, Controls::All);

        assert!(lines.feed(b"on").is_empty());
        assert_eq!(lines.feed(b"e\ntwo\nthr"), [b"[a] one\n", b"[a] two\n"]);
        assert_eq!(lines.finish().unwrap(), b"[a] thr\n");
        assert_eq!(lines.finish(), None);
    }

    #[test]
    fn the_bootstrap_is_left_out_unless_it_is_asked_for() {
        let log = b"[KFP Executor 2026-01-01 00:00:00,000 INFO]: Got executor_input:\n{\n  \"a\": 1\n}\nhello\n";
        let shown = |raw| LineFormatter::new(String::new(), raw, Controls::All).feed(log);

        assert_eq!(shown(false), [b"hello\n"]);
        assert_eq!(shown(true).len(), 5);
    }

    #[test]
    fn terminals_get_colours_and_nothing_else() {
        let log = b"\x1b]0;title\x07\x1b[31mred\n";
        let shown = |controls| LineFormatter::new("[a] ".to_owned(), false, controls).feed(log);

        assert_eq!(shown(Controls::Colours), [b"[a] \x1b[31mred\x1b[0m\n"]);
        assert_eq!(shown(Controls::None), [b"[a] red\n"]);
        assert_eq!(shown(Controls::All), [[b"[a] ", log.as_slice()].concat()]);
    }
}
