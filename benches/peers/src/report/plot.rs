//! Plots: a row for each workload, a mark for each peer, and how many times slotlog's figure it is, on a logarithmic axis.

use std::path::Path;

use anyhow::Result;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Table;
use crate::peers::PeerName;
use crate::workloads::Row;

/// The rows that are shown where there is little space.
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
/// Where the axis begins and ends, unless figures lie beyond.
const AXIS: (f64, f64) = (0.25, 32.0);

const INK: RGBColor = RGBColor(0x33, 0x33, 0x33);
const PALE: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);

/// Colours that also those tell apart who see few (Okabe and Ito, 2008); each shape comes with all of them.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x00, 0x00, 0x00),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// From ratios to places across.
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

/// Draws the mark of the `at`th peer.
fn mark(area: &Area<'_>, at: usize, place: (i32, i32)) -> Result<()> {
    let style = COLOURS[at % COLOURS.len()].filled();
    if at < COLOURS.len() {
        area.draw(&Circle::new(place, 5, style))?;
    } else {
        area.draw(&TriangleMarker::new(place, 6, style))?;
    }
    Ok(())
}

fn text(area: &Area<'_>, words: &str, place: (i32, i32), at: HPos) -> Result<()> {
    let style = ("sans-serif", 13).into_font().color(&INK).pos(Pos::new(at, VPos::Center));
    Ok(area.draw(&Text::new(words, place, style))?)
}

/// The names of the peers with their marks.
fn legend(area: &Area<'_>, peers: &[PeerName]) -> Result<()> {
    let columns = 7;
    let width = (WIDTH as i32 - 20) / columns;
    for (at, peer) in (0..).zip(peers) {
        let place = (20 + (at % columns) * width, 14 + (at / columns) * 20);
        mark(area, at as usize, place)?;
        text(area, peer.facts().name, (place.0 + 10, place.1), HPos::Left)?;
    }
    Ok(())
}

pub(super) fn draw(table: &Table<'_>, rows: &[Row], path: &Path) -> Result<()> {
    let peers: Vec<PeerName> = table.section.peers.iter().copied().filter(|peer| *peer != PeerName::Slotlog).collect();
    let ratio = |row: Row, peer: PeerName| table.cell(row, peer)?.ratio.filter(|ratio| *ratio > 0.0);
    let ratios: Vec<f64> = rows.iter().flat_map(|row| peers.iter().filter_map(|peer| ratio(*row, *peer))).collect();
    let axis = Axis::new(&ratios);
    let height = HEAD as u32 + ROW_HEIGHT * rows.len() as u32 + FOOT as u32;
    let area = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE)?;
    legend(&area, &peers)?;
    let bottom = height as i32 - FOOT;
    for tick in axis.ticks() {
        let (across, is_one) = (axis.at(tick), tick == 1.0);
        let style = ShapeStyle { color: if is_one { INK } else { PALE }.into(), filled: false, stroke_width: 1 };
        area.draw(&PathElement::new([(across, HEAD - 8), (across, bottom)], style))?;
        let label = if is_one { String::from("slotlog") } else { format!("{tick}×") };
        text(&area, &label, (across, bottom + 12), HPos::Center)?;
    }
    for (at, row) in (0..).zip(rows) {
        let down = HEAD + at * ROW_HEIGHT as i32 + ROW_HEIGHT as i32 / 2;
        text(&area, row.label(), (LEFT - 12, down), HPos::Right)?;
        for (at, peer) in peers.iter().enumerate() {
            if let Some(ratio) = ratio(*row, *peer) {
                mark(&area, at, (axis.at(ratio), down))?;
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
