//! How tables and paragraphs are laid out, for names in any script.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use unicode_width::UnicodeWidthStr;

/// Where the width is not known, as in a pipe.
const USUAL_WIDTH: usize = 80;

const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "%"];

/// Columns of the terminal, or the usual ones.
pub fn width() -> usize {
    Table::new().width().map_or(USUAL_WIDTH, usize::from).clamp(20, 100)
}

/// A table without lines, whose first column is left-aligned, and the others, which are figures, right-aligned. On a
/// terminal too narrow for it, cells are wrapped.
pub fn table<const COLUMNS: usize>(head: [&str; COLUMNS]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head).set_content_arrangement(ContentArrangement::Dynamic);
    for (number, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        column.set_cell_alignment(if number == 0 { CellAlignment::Left } else { CellAlignment::Right });
    }
    table
}

/// The same with text in the last column.
pub fn table_with_text<const COLUMNS: usize>(head: [&str; COLUMNS]) -> Table {
    let mut table = table(head);
    if let Some(last) = table.column_mut(COLUMNS - 1) {
        last.set_cell_alignment(CellAlignment::Left);
    }
    table
}

/// The lines of a table, each with its end.
pub fn lines(table: &Table) -> Vec<String> {
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}

/// A paragraph in lines of at most this many columns, the lines after the first indented. Words that are longer stay
/// whole.
pub fn wrapped(text: &str, indent: usize, width: usize) -> Vec<String> {
    let start = text.len() - text.trim_start_matches(' ').len();
    let mut lines = vec![text[..start].to_owned()];
    // A figure and its unit stay together.
    let text =
        UNITS.iter().fold(text.to_owned(), |text, unit| text.replace(&format!(" {unit}"), &format!("\u{a0}{unit}")));
    for word in text.split(' ') {
        let last = lines.len() - 1;
        let len = lines[last].width();
        if len > indent && len + 1 + word.width() > width {
            lines.push(format!("{:indent$}{word}", ""));
        } else {
            let line = &mut lines[last];
            if line.len() > start {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.iter().map(|line| line.replace('\u{a0}', " ")).collect()
}
