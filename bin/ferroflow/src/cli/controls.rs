//! Control sequences in what steps print: a terminal would obey them.

/// Ends colours that a line leaves on.
const RESET: &str = "\x1b[0m";

/// A text without control sequences and control characters; with `colours`, those of SGR (colours,
/// bold) are kept, and ended where the text ends.
pub(super) fn strip_controls(text: &str, colours: bool) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    let mut coloured = false;
    while let Some(at) = rest.find(is_control) {
        kept.push_str(&rest[..at]);
        let (sequence, after) = sequence(&rest[at..]);
        if colours && is_colour(sequence) {
            kept.push_str(sequence);
            coloured = true;
        }
        rest = after;
    }
    kept.push_str(rest);
    if coloured {
        let end = kept.trim_end_matches(['\n', '\r']).len();
        kept.insert_str(end, RESET);
    }
    kept
}

/// What is no text. Tabs, ends of lines, and the returns of progress bars are.
fn is_control(c: char) -> bool {
    c.is_control() && !matches!(c, '\t' | '\n' | '\r')
}

fn is_colour(sequence: &str) -> bool {
    let inner = sequence.strip_prefix("\x1b[");
    let inner = inner.and_then(|inner| inner.strip_suffix('m'));
    let is_sgr_char = |c: char| c.is_ascii_digit() || c == ';' || c == ':';
    inner.is_some_and(|inner| inner.chars().all(is_sgr_char))
}

/// The control sequence that a text begins with (ECMA-48), and what follows it. One whose end is
/// missing goes to the end of its line.
fn sequence(text: &str) -> (&str, &str) {
    let mut chars = text.char_indices();
    let first = chars.next().map(|(_, c)| c);
    let kind = match (first, chars.clone().next()) {
        (Some('\x1b'), Some((_, kind))) => {
            chars.next();
            kind
        }
        // C1 controls: one character stands for ESC and what follows it.
        (Some('\u{9b}'), _) => '[',
        (Some('\u{9d}' | '\u{90}' | '\u{98}' | '\u{9e}' | '\u{9f}'), _) => ']',
        _ => return text.split_at(chars.offset()),
    };
    match kind {
        '[' => {
            let inner = |c: &char| ('\x20'..='\x3f').contains(c);
            let rest = chars.as_str();
            let last = rest.chars().take_while(inner).count();
            let end = rest[last..]
                .chars()
                .next()
                .filter(|c| ('@'..='~').contains(c));
            text.split_at(chars.offset() + last + end.map_or(0, char::len_utf8))
        }
        // Titles, links, clipboards: texts up to BEL or ST.
        ']' | 'P' | 'X' | '^' | '_' => {
            let start = chars.offset();
            let rest = chars.as_str();
            let line = rest.find('\n').unwrap_or(rest.len());
            let ends = ["\x07", "\x1b\\", "\u{9c}"].into_iter();
            let ends = ends.filter_map(|end| rest[..line].find(end).map(|at| at + end.len()));
            text.split_at(start + ends.min().unwrap_or(line))
        }
        // Those that choose a set of characters have a third character.
        ' '..='/' => {
            chars.next();
            text.split_at(chars.offset())
        }
        '0'..='~' => text.split_at(chars.offset()),
        // ESC alone: what follows is text.
        _ => text.split_at(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_steers_no_terminal() {
        let plain = |text| strip_controls(text, false);

        assert_eq!(plain("a\tb\r\n"), "a\tb\r\n");
        assert_eq!(plain("\x1b]0;title\x07text"), "text");
        assert_eq!(plain("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\"), "link");
        assert_eq!(plain("a\x1b[2J\x1b[1;1Hb\x1b[?25lc"), "abc");
        assert_eq!(plain("\x1b]52;c;never ended\nnext"), "\nnext");
        assert_eq!(plain("a\x07\x08\x7fb\x1b(Bc\x1bcd\u{9b}2Je"), "abcde");
        assert_eq!(plain("\x1b[31mred\x1b[0m\x1b"), "red");
        assert_eq!(plain("ä\x1b[äö\x1bü"), "ääöü");
    }

    #[test]
    fn colours_are_kept_where_they_are_wanted_and_end_with_the_line() {
        let kept = strip_controls("\x1b[1;31mred\x1b[2K\n", true);

        assert_eq!(kept, "\x1b[1;31mred\x1b[0m\n");
        assert_eq!(strip_controls("\x1b[>4;1mplain", true), "plain");
    }
}
