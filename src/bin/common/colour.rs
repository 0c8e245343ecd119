//! Colours, on a terminal only, and not if `NO_COLOR` is set.

use std::io;

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

/// The styles of what is printed: all plain where there are no colours.
#[derive(Clone, Copy, Default)]
pub struct Colours {
    pub good: Style,
    pub note: Style,
    pub warning: Style,
    pub bad: Style,
    pub heading: Style,
    pub faint: Style,
}

impl Colours {
    /// What standard output can show.
    pub fn of_stdout() -> Colours {
        match AutoStream::choice(&io::stdout()) {
            ColorChoice::Never => Colours::default(),
            _ => Colours {
                good: AnsiColor::Green.on_default().bold(),
                note: AnsiColor::Cyan.on_default().bold(),
                warning: AnsiColor::Yellow.on_default().bold(),
                bad: AnsiColor::Red.on_default().bold(),
                heading: Style::new().bold(),
                faint: Style::new().dimmed(),
            },
        }
    }
}

/// A text in a style.
pub fn paint(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}
