//! The results: medians of the rounds, and ratios between peers of the same round.

mod markdown;
mod plot;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use crate::peers::{Facts, PeerName};
use crate::runner::{Results, Section};
use crate::workloads::Row;

/// The summary of all rounds of a peer in a row.
#[derive(Clone, Copy, Debug)]
struct Cell {
    /// The median.
    value: f64,
    /// The median of its ratios to slotlog in the same round: above one, slotlog takes less.
    ratio: Option<f64>,
    /// The spread of the rounds, as a share of the median.
    spread: f64,
    is_partial: bool,
}

/// A section, summed up.
struct Table<'r> {
    section: &'r Section,
    peers: &'r BTreeMap<PeerName, Facts>,
    cells: BTreeMap<(Row, PeerName), Cell>,
}

pub(crate) struct Report<'r> {
    results: &'r Results,
    tables: Vec<Table<'r>>,
}

/// The middle figure, or the mean of the two in the middle.
pub(crate) fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    let upper = *figures.get(middle)?;
    Some(if figures.len().is_multiple_of(2) { f64::midpoint(figures[middle - 1], upper) } else { upper })
}

impl<'r> Table<'r> {
    fn new(section: &'r Section, peers: &'r BTreeMap<PeerName, Facts>) -> Table<'r> {
        let mut figures: BTreeMap<(Row, PeerName), BTreeMap<u32, f64>> = BTreeMap::new();
        let mut partial = Vec::new();
        for run in &section.runs {
            let place = (run.figure.row, run.peer);
            figures.entry(place).or_default().insert(run.round, run.figure.value);
            if run.figure.is_partial {
                partial.push(place);
            }
        }
        let cell = |(row, peer)| {
            let of_peer = figures.get(&(row, peer))?;
            let of_slotlog = figures.get(&(row, PeerName::Slotlog));
            let ratios = of_peer.iter().filter_map(|(round, value)| Some(value / of_slotlog?.get(round)?));
            let value = median(of_peer.values().copied().collect())?;
            let ratio = median(ratios.filter(|ratio| ratio.is_finite()).collect());
            let least = of_peer.values().copied().fold(f64::INFINITY, f64::min);
            let most = of_peer.values().copied().fold(0.0, f64::max);
            let spread = (most - least) / value;
            Some(Cell { value, ratio, spread, is_partial: partial.contains(&(row, peer)) })
        };
        let cells = figures.keys().filter_map(|place| Some((*place, cell(*place)?))).collect();
        Table { section, peers, cells }
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self.cells.keys().map(|(row, _)| *row).collect();
        rows.dedup();
        rows
    }

    /// The median of the spreads of all cells.
    fn spread(&self) -> Option<f64> {
        median(self.cells.values().map(|cell| cell.spread).filter(|spread| spread.is_finite()).collect())
    }

    fn cell(&self, row: Row, peer: PeerName) -> Option<&Cell> {
        self.cells.get(&(row, peer))
    }
}

impl<'r> Report<'r> {
    pub(crate) fn new(results: &'r Results) -> Report<'r> {
        let tables = results.sections.iter().map(|section| Table::new(section, &results.peers));
        Report { results, tables: tables.collect() }
    }

    pub(crate) fn markdown(&self) -> String {
        markdown::report(self)
    }

    /// Draws plots into a folder: two for each section, one with all rows and one with the most important.
    pub(crate) fn draw(&self, folder: &Path) -> Result<()> {
        for table in &self.tables {
            let name = format!("{}x{}", table.section.keys, table.section.value_len);
            plot::draw(table, &table.rows(), &folder.join(format!("peers-{name}.svg")))?;
            plot::draw(table, plot::SHORT, &folder.join(format!("peers-{name}-short.svg")))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::Run;
    use crate::workloads::Figure;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn a_ratio_is_that_of_one_round() {
        // Each round is twice as slow as the one before, and the peer always takes three times as long.
        let run = |round: u32, peer, value| Run {
            round,
            peer,
            figure: Figure { row: Row::Get, value: value * f64::from(1 << round), is_partial: false },
        };
        let runs = (0..3).flat_map(|round| [run(round, PeerName::Slotlog, 10.0), run(round, PeerName::Lmdb, 30.0)]);
        let section = Section { keys: 1, value_len: 8, runs: runs.collect(), failures: Vec::new() };
        let peers = BTreeMap::new();
        let table = Table::new(&section, &peers);
        let cell = table.cell(Row::Get, PeerName::Lmdb).unwrap();
        assert_eq!((cell.value, cell.ratio), (60.0, Some(3.0)));
        // From half of the median to twice the median.
        assert_eq!(table.spread(), Some(1.5));
    }
}
