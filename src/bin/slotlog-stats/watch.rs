//! As `top`: what happens in a store, again and again.

use std::io::{self, IsTerminal, Write as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use slotlog::{Access, Stats, Store};

use super::common::colour::{Colours, paint};
use super::common::figures::{count, percent, printable, size, span};
use super::common::tables::width;
use super::text::{upkeep, writing};
use super::verdict::{Verdict, age};

/// Clears the terminal.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// What is remembered from one look to the next.
struct Before {
    at: Instant,
    stats: Stats,
}

/// Looks at a store every few seconds. A pipe closed early ends it, as an interrupt does.
pub fn watch(file: &Path, seconds: f64, most: Option<u64>) -> Result<(), String> {
    let store = Store::options().access(Access::ReadOnly).create(false).open(file).map_err(|error| error.report())?;
    let (terminal, colours) = (io::stdout().is_terminal(), Colours::of_stdout());
    let mut before: Option<Before> = None;
    for look in 1u64.. {
        let stats = store.stats().map_err(|error| error.report())?;
        let now = Before { at: Instant::now(), stats };
        let text = show(&now, before.as_ref(), file, colours);
        let text = if terminal { format!("{CLEAR}{text}") } else { format!("{text}\n") };
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            printed => printed.map_err(|error| format!("could not print: {error}"))?,
        }
        before = Some(now);
        if most.is_some_and(|most| look >= most) {
            break;
        }
        thread::sleep(Duration::from_secs_f64(seconds));
    }
    Ok(())
}

fn show(now: &Before, before: Option<&Before>, file: &Path, colours: Colours) -> String {
    let stats = &now.stats;
    let verdict = Verdict::of(Some(stats), None, None, None);
    let style = [colours.good, colours.note, colours.warning, colours.bad][verdict.level as usize];
    let mut text = format!("{}: {}\n", printable(file), paint(style, verdict.word));
    let mut figure = |name: &str, value: String| {
        let line: String = format!("{name:<12}  {value}").chars().take(width()).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    };
    let rates = Rates::between(before, now);
    figure(
        "commits",
        format!("{}{}", count(stats.commits), rates.of(|rates| format!(", {} a second", count(rates.commits)))),
    );
    figure(
        "log",
        format!("{}{}", size(stats.log_bytes), rates.of(|rates| format!(", {} a second written", size(rates.written)))),
    );
    figure(
        "cleaned",
        format!("{}{}", size(stats.cleaned_bytes), rates.of(|rates| format!(", {} a second", size(rates.cleaned)))),
    );
    figure(
        "file",
        format!("{}{}", size(stats.file_len), rates.of(|rates| format!(", {} in this time", growth(rates.grown)))),
    );
    figure("dead", format!("{} of the log: {}", percent(stats.dead_share), size(stats.dead_bytes)));
    figure(
        "oldest pin",
        match &stats.oldest_pin {
            None => "none".to_owned(),
            Some(pin) => {
                let since = pin.since.map_or_else(String::new, |since| format!(", for {}", span(age(since))));
                let holder = pin.pid.map_or_else(|| "an unknown process".to_owned(), |pid| format!("process {pid}"));
                format!("{} commits behind, {holder}{since}; keeps {}", count(pin.behind), size(stats.waiting.pins))
            }
        },
    );
    figure("writing now", writing(stats));
    figure("openers", stats.processes.iter().map(|process| process.pid.to_string()).collect::<Vec<_>>().join(", "));
    figure("upkeep", upkeep(stats));
    for remark in verdict.remarks {
        figure(remark.kind, remark.what);
    }
    text
}

/// Growth or shrinking of the file.
fn growth(bytes: i64) -> String {
    format!("{}{}", if bytes < 0 { "-" } else { "+" }, size(bytes.unsigned_abs()))
}

/// What happened between two looks; rates are per second.
#[derive(Default)]
struct Rates {
    is_known: bool,
    commits: u64,
    written: u64,
    cleaned: u64,
    grown: i64,
}

impl Rates {
    fn between(before: Option<&Before>, now: &Before) -> Rates {
        let Some(before) = before else { return Rates::default() };
        let seconds = now.at.duration_since(before.at).as_secs_f64().max(0.001);
        let rate = |of: fn(&Stats) -> u64| (of(&now.stats).saturating_sub(of(&before.stats)) as f64 / seconds) as u64;
        Rates {
            is_known: true,
            commits: rate(|stats| stats.commits),
            // What the head has passed was written, too.
            written: rate(|stats| stats.log_bytes.saturating_add(stats.cleaned_bytes)),
            cleaned: rate(|stats| stats.cleaned_bytes),
            grown: now.stats.file_len.cast_signed().saturating_sub(before.stats.file_len.cast_signed()),
        }
    }

    /// A text about it, if there was a look before.
    fn of(&self, text: impl FnOnce(&Rates) -> String) -> String {
        if self.is_known { text(self) } else { String::new() }
    }
}
