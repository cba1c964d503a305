//! The cause of a failed command, as its log tells it: the exception that ended a Python program,
//! else the last line that was printed.

use anstream::adapter::strip_str;

/// How much of a log's end is searched: an exception that is further up was survived.
pub(crate) const SEARCHED_BYTES: u64 = 16 * 1024;

/// Characters of a cause; what is longer is in the log.
const LENGTH_MAX: usize = 1000;

/// The exit code of an interpreter that an exception ended.
const UNCAUGHT_EXIT_CODE: i32 = 1;

/// What an installer says last whatever happened.
const PIP_NOTICE: &str = "[notice]";

/// The sentence for a command that ended with `code` and printed `log` before.
pub(crate) fn from_log(code: i32, log: &str) -> String {
    let log = strip_str(log).to_string();
    let lines: Vec<&str> = log.lines().map(visible_text).collect();
    if let Some(exception) = exception(&lines, code) {
        return truncated(&exception);
    }
    let last = lines
        .iter()
        .rev()
        .map(|line| line.trim())
        .find(|line| !line.is_empty() && !line.starts_with(PIP_NOTICE));
    match last {
        Some(last) => truncated(&format!("exit code {code}, last line: {last}")),
        None => format!("exit code {code}"),
    }
}

/// What is left of a line that was written over, as progress bars do.
fn visible_text(line: &str) -> &str {
    let line = line.trim_end();
    line.rsplit_once('\r').map_or(line, |(_, shown)| shown)
}

/// The exception of the last traceback: `Name: message`. A program that ends with another code than
/// the interpreter's may have survived it, unless it is the last thing that was printed.
fn exception(lines: &[&str], code: i32) -> Option<String> {
    // The last frame of the last traceback: what follows its lines of source names the exception.
    let frame = lines
        .iter()
        .rposition(|line| strip_group_frame(line).starts_with("  File \""))?;
    let after = |line: &&str| !strip_group_frame(line).starts_with(' ');
    let at = frame + lines[frame..].iter().position(after)?;
    let first = strip_group_frame(lines[at]);
    let mut rest = lines[at + 1..]
        .iter()
        .map(|line| line.trim())
        .filter(|line| !line.is_empty());
    if !names_exception(first) {
        return None;
    }
    // A message that begins with a line break is on the next line.
    let more = first.ends_with(':').then(|| rest.next()).flatten();
    if code != UNCAUGHT_EXIT_CODE && rest.next().is_some() {
        return None;
    }
    Some(more.map_or_else(|| first.to_owned(), |more| format!("{first} {more}")))
}

/// A line of an exception group's own traceback without the frame that is drawn around it.
fn strip_group_frame(line: &str) -> &str {
    line.strip_prefix("  | ").unwrap_or(line)
}

/// Whether the line starts with the qualified name of a class and ends there, or has a colon next.
fn names_exception(line: &str) -> bool {
    let name = line.split_once(':').map_or(line, |(name, _)| name);
    let begins = |first: char| first.is_alphabetic() || first == '_';
    name.starts_with(begins)
        && name
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '<' | '>'))
}

fn truncated(text: &str) -> String {
    let mut text: String = text
        .chars()
        .filter(|c| !c.is_control())
        .take(LENGTH_MAX + 1)
        .collect();
    if text.chars().count() > LENGTH_MAX {
        text.pop();
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACEBACK: &str = "\
Collecting kfp
Traceback (most recent call last):
  File \"<frozen runpy>\", line 198, in _run_module_as_main
  File \"/tmp/x/ephemeral_component.py\", line 9, in count
    assert words == wanted, f\"only {words} words, wanted {wanted}\"
           ^^^^^^^^^^^^^^^
AssertionError: only 4 words, wanted 9
";

    #[test]
    fn an_exception_that_ended_a_program_is_the_cause() {
        assert_eq!(
            from_log(1, TRACEBACK),
            "AssertionError: only 4 words, wanted 9"
        );
        // Printed while the interpreter ended, or by the shell around it.
        let more = format!("{TRACEBACK}closing the pool\n");
        assert_eq!(from_log(1, &more), "AssertionError: only 4 words, wanted 9");
    }

    #[test]
    fn the_last_exception_of_a_chain_is_the_cause() {
        let log = format!(
            "{TRACEBACK}\nThe above exception was the direct cause of the following exception:\n\n\
             Traceback (most recent call last):\n  File \"a.py\", line 3, in <module>\n    f()\n\
             __main__.f.<locals>.Bad: it: failed\n"
        );
        assert_eq!(from_log(1, &log), "__main__.f.<locals>.Bad: it: failed");
    }

    #[test]
    fn messages_of_several_lines_and_groups_are_named_by_their_first() {
        let frame = "  File \"a.py\", line 1, in <module>\n    check()\n";
        let arrays = format!("{frame}AssertionError: \nArrays are not equal\n\n x: 1\n y: 2\n");
        assert_eq!(from_log(1, &arrays), "AssertionError: Arrays are not equal");
        let bare = format!("{frame}KeyboardInterrupt\n");
        assert_eq!(from_log(1, &bare), "KeyboardInterrupt");
        let group = "  + Exception Group Traceback (most recent call last):\n  \
                     |   File \"a.py\", line 1, in <module>\n  |     raise group\n  \
                     | ExceptionGroup: both (2 sub-exceptions)\n  \
                     +-+---------------- 1 ----------------\n    | ValueError: 1\n    \
                     +------------------------------------\n";
        assert_eq!(
            from_log(1, group),
            "ExceptionGroup: both (2 sub-exceptions)"
        );
        let syntax = "  File \"a.py\", line 1\n    def (\n        ^\nSyntaxError: invalid syntax\n";
        assert_eq!(from_log(1, syntax), "SyntaxError: invalid syntax");
    }

    #[test]
    fn a_handled_exception_is_not_the_cause() {
        let log = format!("{TRACEBACK}trying again\nthe model is no good\n");
        assert_eq!(
            from_log(4, &log),
            "exit code 4, last line: the model is no good"
        );
        assert_eq!(
            from_log(4, TRACEBACK),
            "AssertionError: only 4 words, wanted 9"
        );
    }

    #[test]
    fn other_commands_are_quoted_with_their_last_line() {
        assert_eq!(from_log(3, ""), "exit code 3");
        assert_eq!(
            from_log(127, "begun\nsh: 1: foo: not found\n\n"),
            "exit code 127, last line: sh: 1: foo: not found"
        );
        let pip = "ERROR: No matching distribution found for nosuch\n\n\
                   [notice] A new release of pip is available\n[notice] To update, run: pip\n";
        assert_eq!(
            from_log(1, pip),
            "exit code 1, last line: ERROR: No matching distribution found for nosuch"
        );
    }

    #[test]
    fn a_cause_is_one_short_line_of_plain_text() {
        let log = "  9%|▉\r\u{1b}[31m 10%|█\u{1b}[0m\u{7}\n";
        assert_eq!(from_log(2, log), "exit code 2, last line: 10%|█");
        let long = from_log(2, &"x".repeat(5000));
        assert_eq!(long.chars().count(), LENGTH_MAX + 1);
        assert!(long.ends_with('…'));
    }
}
