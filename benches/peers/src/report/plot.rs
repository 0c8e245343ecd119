//! Plots: a row for each workload, a mark for each peer at the multiple of slotlog's figure, on a logarithmic axis.

use std::path::Path;

use anyhow::Result;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Table;
use crate::peers::{Facts, PeerName};
use crate::workloads::Row;

/// The rows that are shown where space is short.
pub(super) const SHORT: &[Row] = &[
    Row::LoadSingles,
    Row::GetView,
    Row::Miss,
    Row::GetMany,
    Row::Iterate,
    Row::Overwrite,
    Row::YcsbA,
    Row::SyncedSingle,
];

const WIDTH: u32 = 960;
const ROW_HEIGHT: u32 = 26;
/// Above and below the rows.
const HEAD: i32 = 64;
const FOOT: i32 = 40;
/// Left and right of the axis.
const LEFT: i32 = 210;
const RIGHT: i32 = 24;
/// Both ends of the axis, unless figures lie beyond.
const AXIS: (f64, f64) = (0.25, 32.0);

const INK: RGBColor = RGBColor(0x33, 0x33, 0x33);
const PALE: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);

/// One for each peer with a file, whose marks are circles, and then again for the others, whose marks are triangles.
/// (Tableau's ten.)
const COLOURS: [RGBColor; 10] = [
    RGBColor(0x1f, 0x77, 0xb4),
    RGBColor(0xff, 0x7f, 0x0e),
    RGBColor(0x2c, 0xa0, 0x2c),
    RGBColor(0xd6, 0x27, 0x28),
    RGBColor(0x94, 0x67, 0xbd),
    RGBColor(0x8c, 0x56, 0x4b),
    RGBColor(0xe3, 0x77, 0xc2),
    RGBColor(0x7f, 0x7f, 0x7f),
    RGBColor(0xbc, 0xbd, 0x22),
    RGBColor(0x17, 0xbe, 0xcf),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Maps ratios to horizontal positions.
struct Axis {
    from: f64,
    to: f64,
}

impl Axis {
    fn new(ratios: &[f64]) -> Axis {
        let from = ratios.iter().copied().fold(AXIS.0, f64::min);
        let to = ratios.iter().copied().fold(AXIS.1, f64::max);
        Axis { from: from.log2().floor().exp2(), to: to.log2().ceil().exp2() }
    }

    fn at(&self, ratio: f64) -> i32 {
        let share = (ratio / self.from).log2() / (self.to / self.from).log2();
        LEFT + (share * f64::from(WIDTH as i32 - LEFT - RIGHT)) as i32
    }

    /// The powers of two on it.
    fn ticks(&self) -> impl Iterator<Item = f64> {
        (self.from.log2() as i32..=self.to.log2() as i32).map(|exponent| f64::from(exponent).exp2())
    }
}

/// How a peer is marked.
#[derive(Clone, Copy)]
struct Mark<'t> {
    peer: PeerName,
    name: &'t str,
    colour: RGBColor,
    is_circle: bool,
}

impl<'t> Mark<'t> {
    /// The marks of all peers but slotlog, which is the line.
    fn all(table: &'t Table<'_>) -> Vec<Mark<'t>> {
        let others: Vec<_> = table.peers.iter().filter(|(peer, _)| **peer != PeerName::Slotlog).collect();
        let marks = |is_circle: bool| {
            let alike = others.iter().filter(move |(_, facts)| facts.is_lasting == is_circle);
            let mark = move |((peer, facts), colour): (&(&PeerName, &'t Facts), _)| Mark {
                peer: **peer,
                name: &facts.name,
                colour,
                is_circle,
            };
            alike.zip(COLOURS).map(mark)
        };
        marks(true).chain(marks(false)).collect()
    }

    fn draw(self, area: &Area<'_>, place: (i32, i32)) -> Result<()> {
        let style = self.colour.filled();
        match self.is_circle {
            true => area.draw(&Circle::new(place, 5, style))?,
            false => area.draw(&TriangleMarker::new(place, 6, style))?,
        }
        Ok(())
    }
}

fn text(area: &Area<'_>, words: &str, place: (i32, i32), at: HPos) -> Result<()> {
    let style = ("sans-serif", 13).into_font().color(&INK).pos(Pos::new(at, VPos::Center));
    Ok(area.draw(&Text::new(words, place, style))?)
}

/// The names of the peers with their marks.
fn legend(area: &Area<'_>, marks: &[Mark<'_>]) -> Result<()> {
    let columns = 7;
    let width = (WIDTH as i32 - 20) / columns;
    for (at, mark) in (0..).zip(marks) {
        let (left, down) = (20 + (at % columns) * width, 14 + (at / columns) * 20);
        mark.draw(area, (left, down))?;
        text(area, mark.name, (left + 10, down), HPos::Left)?;
    }
    Ok(())
}

/// The label below the line of a ratio.
fn label(ratio: f64) -> String {
    match ratio {
        1.0 => String::from("slotlog"),
        ratio if ratio < 1.0 => format!("1/{}", ratio.recip()),
        _ => format!("{ratio}×"),
    }
}

pub(super) fn draw(table: &Table<'_>, rows: &[Row], path: &Path) -> Result<()> {
    let marks = Mark::all(table);
    let ratio = |row: Row, peer: PeerName| table.cell(row, peer)?.ratio.filter(|ratio| *ratio > 0.0);
    let ratios: Vec<f64> = rows.iter().flat_map(|row| marks.iter().filter_map(|mark| ratio(*row, mark.peer))).collect();
    let axis = Axis::new(&ratios);
    let height = HEAD as u32 + ROW_HEIGHT * rows.len() as u32 + FOOT as u32;
    let area = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE)?;
    legend(&area, &marks)?;
    let bottom = height as i32 - FOOT;
    for tick in axis.ticks() {
        let (across, is_one) = (axis.at(tick), tick == 1.0);
        let style = ShapeStyle { color: if is_one { INK } else { PALE }.into(), filled: false, stroke_width: 1 };
        area.draw(&PathElement::new([(across, HEAD - 8), (across, bottom)], style))?;
        text(&area, &label(tick), (across, bottom + 12), HPos::Center)?;
    }
    for (at, row) in (0..).zip(rows) {
        let down = HEAD + at * ROW_HEIGHT as i32 + ROW_HEIGHT as i32 / 2;
        text(&area, row.label(), (LEFT - 12, down), HPos::Right)?;
        for mark in &marks {
            if let Some(ratio) = ratio(*row, mark.peer) {
                mark.draw(&area, (axis.at(ratio), down))?;
            }
        }
    }
    let caption = format!(
        "left of the line: less than slotlog takes; right of it: more ({} keys, values of {} bytes)",
        table.section.keys, table.section.value_len
    );
    text(&area, &caption, (WIDTH as i32 / 2, height as i32 - 12), HPos::Center)?;
    area.present()?;
    Ok(())
}
