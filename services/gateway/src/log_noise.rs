//! What the kfp SDK's bootstrap prints into a task's log around the output of the user's function.
//!
//! Clients leave it out unless they are asked for everything; the stored log stays whole. The rules
//! are regular expressions that Rust and JavaScript read alike, so that the page and the command line
//! show the same. The user's own `logging` has the executor's prefix as well, so the prefix alone is
//! no sign.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Value, json};

/// One kind of noise.
struct Rule {
    /// Its first line.
    begin: &'static str,
    /// Lines that are like `within` belong to it, up to one that is like `until`. Another one ends it
    /// as well: of a log that was cut, the rest is output.
    body: Option<Body>,
    /// One more line belongs to it if it is like this.
    next: Option<&'static str>,
    /// Its first line where it follows output whose line was not ended.
    tail: Option<&'static str>,
}

/// The lines of a message after its first.
struct Body {
    within: &'static str,
    until: &'static str,
}

const fn single_line(begin: &'static str) -> Rule {
    Rule {
        begin,
        body: None,
        next: None,
        tail: None,
    }
}

/// A message of one line that comes after the function, whose last line may have no end.
const fn final_line(begin: &'static str, tail: &'static str) -> Rule {
    Rule {
        tail: Some(tail),
        ..single_line(begin)
    }
}

/// Messages of `kfp.dsl.executor_main`, of Python that runs it, and of pip before it.
const RULES: &[Rule] = &[
    single_line(
        r"^\[KFP Executor [^\]]* INFO\]: Looking for component `[^`]*` in --component_module_path `[^`]*`$",
    ),
    single_line(
        r"^\[KFP Executor [^\]]* INFO\]: --component_module_path is not specified\. Looking for component `",
    ),
    single_line(
        r#"^\[KFP Executor [^\]]* INFO\]: Loading KFP component "[^"]*" from .* \(directory ".*" and module name ".*"\)$"#,
    ),
    Rule {
        begin: r"^\[KFP Executor [^\]]* INFO\]: Got executor_input:$",
        body: Some(Body {
            within: r"^[{} ]",
            until: r"^\}$",
        }),
        next: None,
        tail: None,
    },
    final_line(
        r"^\[KFP Executor [^\]]* INFO\]: Wrote executor output file to .*\.$",
        r"\[KFP Executor [0-9:, -]* INFO\]: Wrote executor output file to [^ ]*\.$",
    ),
    final_line(
        r"^\[KFP Executor [^\]]* INFO\]: Did not write output file\.$",
        r"\[KFP Executor [0-9:, -]* INFO\]: Did not write output file\.$",
    ),
    Rule {
        begin: r"^<frozen runpy>:[0-9]+: RuntimeWarning: 'kfp\.[a-z_.]*executor_main' found in sys\.modules",
        body: None,
        next: Some(r"^ +warn\("),
        tail: None,
    },
    Rule {
        begin: r"/(site|dist)-packages/kfp/[^:]*:[0-9]+: (Future|Deprecation|User|Runtime)Warning: ",
        body: None,
        next: Some(r"^ +\S"),
        tail: None,
    },
    single_line(r"^WARNING: Running pip as the 'root' user can result in broken permissions"),
    single_line(r"^\[notice\] (A new release of pip|To update, run: )"),
];

/// A rule with its expressions read.
struct CompiledRule {
    begin: Regex,
    body: Option<(Regex, Regex)>,
    next: Option<Regex>,
    tail: Option<Regex>,
}

static COMPILED_RULES: LazyLock<Vec<CompiledRule>> = LazyLock::new(|| {
    let read = |text: &str| Regex::new(text).expect("the rules above are regular expressions");
    let compile = |rule: &Rule| CompiledRule {
        begin: read(rule.begin),
        body: rule
            .body
            .as_ref()
            .map(|body| (read(body.within), read(body.until))),
        next: rule.next.map(read),
        tail: rule.tail.map(read),
    };
    RULES.iter().map(compile).collect()
});

/// The rules for clients in other languages.
pub(crate) fn json() -> Value {
    let rules = RULES.iter().map(|rule| {
        let within = rule.body.as_ref().map(|body| body.within);
        let until = rule.body.as_ref().map(|body| body.until);
        let (begin, next, tail) = (rule.begin, rule.next, rule.tail);
        json!({"begin": begin, "within": within, "until": until, "next": next, "tail": tail})
    });
    rules.collect()
}

/// Where in a message of several lines a log is.
#[derive(Clone, Copy)]
enum Position {
    Body(&'static Regex, &'static Regex),
    Next(&'static Regex),
}

/// Tells noise from output, line by line.
#[derive(Default)]
pub struct Filter {
    position: Option<Position>,
}

impl Filter {
    /// What of a line (without its end) is output, none of one that is noise. The message that
    /// follows output whose line was not ended is taken off.
    pub fn output<'a>(&mut self, line: &'a str) -> Option<&'a str> {
        if self.is_noise(line) {
            return None;
        }
        let mut tails = COMPILED_RULES.iter().filter_map(|rule| rule.tail.as_ref());
        let begin = tails.find_map(|tail| tail.find(line));
        Some(begin.map_or(line, |found| &line[..found.start()]))
    }

    /// Whether a line (without its end) is noise.
    fn is_noise(&mut self, line: &str) -> bool {
        match self.position {
            Some(Position::Body(within, until)) => {
                let is_within = within.is_match(line);
                if !is_within || until.is_match(line) {
                    self.position = None;
                }
                if is_within {
                    return true;
                }
            }
            Some(Position::Next(next)) => {
                self.position = None;
                if next.is_match(line) {
                    return true;
                }
            }
            None => {}
        }
        let Some(rule) = COMPILED_RULES.iter().find(|rule| rule.begin.is_match(line)) else {
            return false;
        };
        self.position = match (&rule.body, &rule.next) {
            (Some((within, until)), _) => Some(Position::Body(within, until)),
            (None, Some(next)) => Some(Position::Next(next)),
            (None, None) => None,
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_was_cut_hides_nothing_that_follows() {
        let mut filter = Filter::default();
        let shown: Vec<_> = [
            "[KFP Executor 2026-11-27 10:00:00,003 INFO]: Got executor_input:",
            "{",
            "    \"inputs\": {",
            "output",
            "more",
        ]
        .into_iter()
        .filter_map(|line| filter.output(line))
        .collect();
        assert_eq!(shown, ["output", "more"]);
    }

    const LOG: &str = r#"WARNING: Running pip as the 'root' user can result in broken permissions and conflicting behaviour
[KFP Executor 2026-11-27 10:00:00,001 INFO]: Looking for component `add` in --component_module_path `/tmp/tmp.x/ephemeral_component.py`
[KFP Executor 2026-11-27 10:00:00,002 INFO]: Loading KFP component "add" from /tmp/tmp.x/ephemeral_component.py (directory "/tmp/tmp.x" and module name "ephemeral_component")
[KFP Executor 2026-11-27 10:00:00,003 INFO]: Got executor_input:
{
    "inputs": {
        "parameterValues": {
            "a": 1
        }
    }
}
/venv/lib/python3.11/site-packages/kfp/dsl/executor.py:12: FutureWarning: old
  import kfp
adding
{
[KFP Executor 2026-11-27 10:00:00,004 INFO]: my own message
[KFP Executor 2026-11-27 10:00:00,005 INFO]: Wrote executor output file to /tmp/out.json.
"#;

    #[test]
    fn the_output_of_the_function_is_left() {
        let mut filter = Filter::default();

        let kept: Vec<_> = LOG.lines().filter_map(|line| filter.output(line)).collect();

        let own = "[KFP Executor 2026-11-27 10:00:00,004 INFO]: my own message";
        assert_eq!(kept, ["adding", "{", own]);
    }

    #[test]
    fn a_message_after_a_line_without_an_end_is_taken_off() {
        let mut filter = Filter::default();
        let mut output = |line: &str| filter.output(line).map(str::to_owned);

        let wrote =
            "[KFP Executor 2026-11-27 10:00:00,005 INFO]: Wrote executor output file to /o.";
        assert_eq!(output(&format!("no newline{wrote}")).unwrap(), "no newline");
        assert_eq!(output(wrote), None);
        let did_not = "[KFP Executor 2026-11-27 10:00:00,005 INFO]: Did not write output file.";
        assert_eq!(output(&format!("50%{did_not}")).unwrap(), "50%");
        let own = "seen: [KFP Executor 2026-11-27 10:00:00,004 INFO]: my own message";
        assert_eq!(output(own).unwrap(), own);
    }

    #[test]
    fn the_page_is_given_every_rule() {
        assert_eq!(json().as_array().map(Vec::len), Some(RULES.len()));
        assert_eq!(json()[3]["until"], r"^\}$");
    }
}
