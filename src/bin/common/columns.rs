//! Tables that fit where they are shown, also where only the environment says how wide that is.

use comfy_table::Table;

/// The lines of a table, within the columns that `COLUMNS` has, if it is set.
pub fn fitted(mut table: Table) -> String {
    let width = std::env::var("COLUMNS").ok().and_then(|width| width.parse().ok());
    if let Some(width) = width {
        table.set_width(width);
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}
