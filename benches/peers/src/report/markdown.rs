//! The report as Markdown.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{Cell, Report, Table};
use crate::peers::{Facts, PeerName};
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

/// A table of all rows, with the text of `show` for each cell.
fn table(table: &Table<'_>, show: impl Fn(&Cell) -> Option<String>) -> String {
    let names: Vec<&str> = table.peers.values().map(|facts| &facts.name[..]).collect();
    let mut text = format!("| | {} |\n| --- |{}\n", names.join(" | "), " --: |".repeat(names.len()));
    for row in table.rows() {
        let cells = table.peers.keys().map(|peer| table.cell(row, *peer).and_then(&show).unwrap_or_default());
        let cells: Vec<String> = cells.collect();
        text += &format!("| {}, {} | {} |\n", row.label(), unit(row), cells.join(" | "));
    }
    text
}

/// The rows in which others take less, with their figures relative to slotlog's.
fn losses(table: &Table<'_>) -> String {
    let mut text = String::new();
    for row in table.rows() {
        let others = table.peers.iter().filter(|(peer, _)| **peer != PeerName::Floor);
        let ratio = |(peer, facts): (&PeerName, _)| Some((facts, table.cell(row, *peer)?.ratio?));
        let mut better: Vec<(&Facts, f64)> = others.filter_map(ratio).filter(|(_, ratio)| *ratio < 1.0).collect();
        better.sort_by(|a, b| a.1.total_cmp(&b.1));
        if !better.is_empty() {
            let better = better.iter().map(|(facts, ratio)| format!("{} {ratio:.2}", facts.name));
            text += &format!("* {}: {}\n", row.label(), better.collect::<Vec<_>>().join(", "));
        }
    }
    if text.is_empty() { String::from("In none.\n") } else { text }
}

fn peers(peers: &BTreeMap<PeerName, Facts>) -> String {
    let mut text = String::from("| peer | version | set up with | a put that returned survives | synced with |\n");
    text += "| --- | --- | --- | --- | --- |\n";
    for facts in peers.values() {
        let cells = [&facts.name, &facts.version, &facts.settings, &facts.buffered, &facts.synced];
        text += &format!("| {} |\n", cells.map(String::as_str).join(" | "));
    }
    text
}

/// The peers that are left out, and why.
fn absent(table: &Table<'_>) -> String {
    let mut text = String::new();
    for facts in table.peers.values().filter(|facts| facts.longest_value < table.section.value_len) {
        let longest = number(facts.longest_value as f64);
        text += &format!("\n{} takes values of at most {longest} bytes.\n", facts.name);
    }
    for failure in &table.section.failures {
        let name = table.peers.get(&failure.peer).map_or("", |facts| &facts.name);
        let message = failure.message.lines().next().unwrap_or_default();
        text += &format!("\n{name} failed at {:?}: {message}\n", failure.workload);
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
         time. Empty: the peer cannot do that.",
        results.processors,
        results.system,
        results.rounds,
        number(results.operations as f64),
        results.seconds
    );
    text += &format!("\n{}", peers(&results.peers));
    for each in &report.tables {
        let keys = number(each.section.keys as f64);
        text += &format!("\n## {keys} keys of 16 bytes, values of {} bytes\n\n", each.section.value_len);
        let mark = |cell: &Cell| if cell.is_partial { "†" } else { "" };
        text += &table(each, |cell| Some(format!("{}{}", number(cell.value), mark(cell))));
        if let Some(spread) = each.spread().filter(|_| results.rounds > 1) {
            text += &format!("\nHalf of the figures differ by less than {:.0} % between the rounds.\n", spread * 1e2);
        }
        text += "\nThe same as a multiple of what slotlog takes:\n\n";
        text += &table(each, |cell| cell.ratio.map(number));
        text += &format!("\nRows in which others take less, and what share of slotlog's:\n\n{}", losses(each));
        text += &absent(each);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::Section;

    #[test]
    fn numbers_have_their_first_digits() {
        assert_eq!(number(0.123), "0.12");
        assert_eq!(number(45.67), "45.7");
        assert_eq!(number(999.6), "1,000");
        assert_eq!(number(1_234_567.0), "1,234,567");
    }

    #[test]
    fn a_peer_that_does_not_take_the_values_is_named() {
        let facts = PeerName::Candystore.facts().unwrap();
        let peers = BTreeMap::from([(PeerName::Candystore, facts)]);
        let section = |value_len| Section { keys: 1, value_len, runs: Vec::new(), failures: Vec::new() };
        let named = |value_len| absent(&Table::new(&section(value_len), &peers));
        assert_eq!(named(1024), "");
        assert_eq!(named(65536), "\nCandyStore takes values of at most 65,471 bytes.\n");
    }
}
