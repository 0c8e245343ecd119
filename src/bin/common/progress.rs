//! How far a long task is, on a terminal.

use std::ops::ControlFlow;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A line on standard error that shows how much is done, how fast, and how long the rest takes. Where that is no
/// terminal, nothing is shown.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A task that is measured in bytes; 0 if their number is not known.
    pub fn of_bytes(what: &'static str, total: u64) -> Progress {
        Progress::new(what, total, "{bytes} of {total_bytes}, {bytes_per_sec}", "{bytes}, {bytes_per_sec}")
    }

    /// A task that is measured in entries; 0 if their number is not known.
    pub fn of_entries(what: &'static str, total: u64) -> Progress {
        Progress::new(what, total, "{human_pos} of {human_len}, {per_sec}", "{human_pos}, {per_sec}")
    }

    fn new(what: &'static str, total: u64, known: &str, unknown: &str) -> Progress {
        let (bar, template) = match total {
            0 => (ProgressBar::no_length(), format!("{{msg}} {unknown}")),
            _ => (ProgressBar::new(total), format!("{{msg}} {{wide_bar}} {known}, {{eta}} left")),
        };
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        bar.set_message(what);
        // Short tasks show nothing that would only flicker.
        bar.enable_steady_tick(Duration::from_millis(500));
        Progress { bar }
    }

    pub fn set(&self, done: u64) {
        self.bar.set_position(done);
    }

    /// What a callback of the library is told: that much of that much is done. It never stops.
    pub fn report(&self, done: u64, total: u64) -> ControlFlow<()> {
        if self.bar.length() != Some(total) {
            self.bar.set_length(total);
        }
        self.bar.set_position(done);
        ControlFlow::Continue(())
    }

    /// Removes the line.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}
