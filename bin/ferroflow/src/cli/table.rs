//! Tables: as wide as the terminal allows.
//!
//! Of a narrow terminal every column gets what it needs at least; what is left goes to names first.
//! Where even that does not fit, columns that can be read elsewhere are left out.

use std::io::{self, IsTerminal as _};

use anstyle::{AnsiColor, Color};
use comfy_table::{Cell, ColumnConstraint, ContentArrangement, Table, Width, presets};

use super::output::{coloured, line, note, style_of, width};

/// Between two columns.
const COLUMN_GAP: usize = 2;

/// Columns whose texts are long.
const TEXT_COLUMNS: &[&str] = &["URI", "NOTE", "VALUE", "DUE"];
/// Columns that things are told apart by.
const NAME_COLUMNS: &[&str] = &["NAME", "TASK", "METRIC", "PIPELINE", "EXPERIMENT", "TYPE"];
/// Columns of times: the date above the time is as narrow as they get.
const TIME_COLUMNS: &[&str] = &["CREATED", "LAST RUN"];

/// Which columns give way, one group after the other, and what is left to each of them. All others
/// are never broken.
const SHRINK_STEPS: &[(&[&str], usize)] = &[
    (TEXT_COLUMNS, 24),
    (NAME_COLUMNS, 24),
    (TIME_COLUMNS, 10),
    (TEXT_COLUMNS, 12),
    (NAME_COLUMNS, 12),
];

/// Columns that are left out where nothing else helps, in this order.
const DROPPABLE_COLUMNS: &[&str] = &["CREATED", "LAST RUN", "SIZE", "TYPE", "DUE"];

/// Prints a table. A column `STATE` is coloured.
pub(super) fn table(head: &[&str], rows: Vec<Vec<String>>) {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(head);
    if coloured() {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    for row in rows {
        let cells = row.into_iter().zip(head).map(|(text, head)| match *head {
            "STATE" => coloured_cell(text),
            _ => Cell::new(text),
        });
        table.add_row(cells);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let left_out = match width().filter(|_| io::stdout().is_terminal()) {
        Some(width) => narrow(&mut table, head, width),
        None => Vec::new(),
    };
    line(&table.trim_fmt());
    if !left_out.is_empty() {
        let names = left_out.join(", ");
        note(&format!("left out, for this terminal is narrow: {names}"));
    }
}

/// Makes a table fit; the columns that are left out for that.
fn narrow<'a>(table: &mut Table, head: &[&'a str], width: usize) -> Vec<&'a str> {
    let natural = table.column_max_content_widths();
    let natural: Vec<usize> = natural.into_iter().map(usize::from).collect();
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(u16::try_from(width).unwrap_or(u16::MAX));
    let fitted = fit(head, &natural, width);
    let mut left_out = Vec::new();
    for ((column, head), width) in table.column_iter_mut().zip(head).zip(fitted) {
        if let Some(width) = width {
            let padded = u16::try_from(width + COLUMN_GAP).unwrap_or(u16::MAX);
            column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(padded)));
        } else {
            column.set_constraint(ColumnConstraint::Hidden);
            left_out.push(*head);
        }
    }
    left_out
}

/// The width of each column, none for one that is left out.
fn fit(head: &[&str], natural: &[usize], width: usize) -> Vec<Option<usize>> {
    let mut fitted: Vec<Option<usize>> = natural.iter().copied().map(Some).collect();
    let mut droppable = DROPPABLE_COLUMNS.iter();
    loop {
        let mut widths = fitted.clone();
        if shrink(head, &mut widths, width) {
            return widths;
        }
        let Some(next) = droppable.next() else {
            return widths;
        };
        for (at, _) in head.iter().enumerate().filter(|(_, head)| *head == next) {
            fitted[at] = None;
        }
    }
}

/// Takes from the columns what is too much, from the widest of a group first; whether it fits then.
fn shrink(head: &[&str], widths: &mut [Option<usize>], available: usize) -> bool {
    let needed: usize = widths
        .iter()
        .flatten()
        .map(|width| width + COLUMN_GAP)
        .sum();
    let mut excess = needed.saturating_sub(COLUMN_GAP + available);
    for (group, least) in SHRINK_STEPS {
        while excess > 0 {
            let shrinkable = widths.iter_mut().zip(head);
            let shrinkable = shrinkable.filter(|(_, head)| group.contains(head));
            let widest = shrinkable.filter_map(|(width, _)| width.as_mut()).max();
            let Some(widest) = widest.filter(|widest| **widest > *least) else {
                break;
            };
            *widest -= 1;
            excess -= 1;
        }
    }
    excess == 0
}

fn coloured_cell(state: String) -> Cell {
    let colour = match style_of(&state).get_fg_color() {
        Some(Color::Ansi(AnsiColor::Green)) => comfy_table::Color::DarkGreen,
        Some(Color::Ansi(AnsiColor::Cyan)) => comfy_table::Color::DarkCyan,
        Some(Color::Ansi(AnsiColor::Blue)) => comfy_table::Color::DarkBlue,
        Some(Color::Ansi(AnsiColor::Red)) => comfy_table::Color::DarkRed,
        Some(Color::Ansi(AnsiColor::Yellow)) => comfy_table::Color::DarkYellow,
        Some(_) => comfy_table::Color::DarkGrey,
        None => return Cell::new(state),
    };
    Cell::new(state).fg(colour)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULES: [&str; 5] = ["ID", "NAME", "STATE", "DUE", "CREATED"];
    const RUNS: [&str; 5] = ["ID", "NAME", "STATE", "CREATED", "TOOK"];

    #[test]
    fn long_texts_give_way_before_names() {
        // `CRON_TZ=Europe/Berlin 0 9 * * mon-fri` is 37 characters wide.
        let fitted = fit(&SCHEDULES, &[8, 7, 8, 37, 19], 80);
        assert_eq!(fitted, [Some(8), Some(7), Some(8), Some(30), Some(19)]);

        let fitted = fit(&RUNS, &[8, 40, 9, 19, 4], 80);
        assert_eq!(fitted, [Some(8), Some(32), Some(9), Some(19), Some(4)]);
    }

    #[test]
    fn a_narrow_terminal_leaves_times_out_and_keeps_names() {
        let fitted = fit(&RUNS, &[8, 40, 9, 19, 4], 40);
        assert_eq!(fitted, [Some(8), Some(13), Some(9), None, Some(4)]);

        let fitted = fit(&RUNS, &[8, 40, 9, 19, 4], 5);
        assert_eq!(fitted, [Some(8), Some(12), Some(9), None, Some(4)]);
    }

    #[test]
    fn a_table_is_as_wide_as_it_needs_where_there_is_room() {
        let fitted = fit(&RUNS, &[8, 10, 9, 19, 4], 200);
        assert_eq!(fitted, [8, 10, 9, 19, 4].map(Some));
    }

    #[test]
    fn lines_fit_and_words_stay_whole() {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_header(SCHEDULES);
        let rule = "CRON_TZ=Europe/Berlin 0 9 * * mon-fri";
        table.add_row([
            "0123abcd",
            "weekday",
            "enabled",
            rule,
            "2026-11-27 10:00:00",
        ]);
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }

        assert!(narrow(&mut table, &SCHEDULES, 80).is_empty());

        let text = table.trim_fmt();
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        assert!(
            text.contains("weekday") && text.contains("Europe/Berlin"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 3, "{text}");
    }
}
