//! The report as Markdown.

use std::fmt::Write;

use super::{Cell, Report, Table};
use crate::peers::PeerName;
use crate::workloads::{Row, Unit};

/// With its first digits, and with commas between the thousands.
fn number(value: f64) -> String {
    let decimals = match value {
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

fn unit(row: Row) -> &'static str {
    match row.unit() {
        Unit::Nanoseconds => "ns",
        Unit::Microseconds => "µs",
        Unit::Milliseconds => "ms",
        Unit::Bytes => "× the data",
        Unit::Mebibytes => "MiB",
    }
}

/// A table of all rows, with what `show` says of each cell.
fn table(table: &Table<'_>, show: impl Fn(&Cell) -> Option<String>) -> String {
    let peers = &table.section.peers;
    let names: Vec<&str> = peers.iter().map(|peer| peer.facts().name).collect();
    let mut text = format!("| | {} |\n| --- |{}\n", names.join(" | "), " --: |".repeat(names.len()));
    for row in table.rows() {
        let cells = peers.iter().map(|peer| table.cell(row, *peer).and_then(&show).unwrap_or_default());
        let cells: Vec<String> = cells.collect();
        text += &format!("| {}, {} | {} |\n", row.label(), unit(row), cells.join(" | "));
    }
    text
}

/// The rows in which others take less, with what they take beside slotlog.
fn losses(table: &Table<'_>) -> String {
    let mut text = String::new();
    for row in table.rows() {
        let ratio = |peer: &PeerName| Some((*peer, table.cell(row, *peer)?.ratio?));
        let mut better: Vec<(PeerName, f64)> = table.section.peers.iter().filter_map(ratio).collect();
        better.retain(|(peer, ratio)| *ratio < 1.0 && *peer != PeerName::Floor);
        better.sort_by(|a, b| a.1.total_cmp(&b.1));
        if !better.is_empty() {
            let better = better.iter().map(|(peer, ratio)| format!("{} {ratio:.2}", peer.facts().name));
            text += &format!("* {}: {}\n", row.label(), better.collect::<Vec<_>>().join(", "));
        }
    }
    if text.is_empty() { String::from("In none.\n") } else { text }
}

fn peers(table: &Table<'_>) -> String {
    let mut text = String::from("| peer | version | set up with | a put that returned survives | synced with |\n");
    text += "| --- | --- | --- | --- | --- |\n";
    for facts in table.section.peers.iter().map(|peer| peer.facts()) {
        let cells = [facts.name, &facts.version, facts.settings, facts.buffered, facts.synced];
        text += &format!("| {} |\n", cells.join(" | "));
    }
    text
}

pub(super) fn report(report: &Report<'_>) -> String {
    let results = report.results;
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "{} processors, {}. Medians of {} rounds; at most {} look-ups in each, and {} s. †: not all was done in that \
         time.",
        results.processors,
        results.system,
        results.rounds,
        number(results.operations as f64),
        results.seconds
    );
    if let Some(first) = report.tables.first() {
        text += &format!("\n{}", peers(first));
    }
    for each in &report.tables {
        let keys = number(each.section.keys as f64);
        text += &format!("\n## {keys} keys of 16 bytes, values of {} bytes\n\n", each.section.value_len);
        let mark = |cell: &Cell| if cell.is_partial { "†" } else { "" };
        text += &table(each, |cell| Some(format!("{}{}", number(cell.value), mark(cell))));
        text += "\nThe same as a multiple of what slotlog takes:\n\n";
        text += &table(each, |cell| cell.ratio.map(number));
        text += &format!("\nRows in which others take less, and what share of slotlog's:\n\n{}", losses(each));
        for failure in &each.section.failures {
            let message = failure.message.lines().next().unwrap_or_default();
            text += &format!("\n{} failed at {:?}: {message}\n", failure.peer.facts().name, failure.workload);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_first_digits() {
        assert_eq!(number(0.123), "0.12");
        assert_eq!(number(45.67), "45.7");
        assert_eq!(number(999.6), "1,000");
        assert_eq!(number(1_234_567.0), "1,234,567");
    }
}
