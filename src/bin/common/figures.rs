//! How sizes, shares, times and names read.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use bytesize::ByteSize;

/// A size in readable units: `1.5 MiB`.
pub fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// The share of a part in the whole; 0 if the whole is 0.
pub fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// A time as RFC 3339 in UTC. Only a damaged file has years beyond its range.
pub fn date(time: SystemTime) -> String {
    let mut text = String::new();
    match write!(text, "{}", humantime::format_rfc3339_millis(time)) {
        Ok(()) => text,
        Err(_) => {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            format!("{} ms after 1970-01-01T00:00:00Z", since.as_millis())
        }
    }
}

/// A path on one line, whatever characters its name has.
pub fn printable(path: &Path) -> String {
    path.to_string_lossy().replace(char::is_control, "\u{fffd}")
}
