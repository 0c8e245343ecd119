//! What each byte of the file is used for, and what waits for what.

use slotlog::Stats;

use super::verdict::oldest_pin;

/// One use of the file.
pub struct Use {
    /// A word of [`words::SPACE`](super::words::SPACE).
    pub word: &'static str,
    pub bytes: u64,
    /// Extents, or records of the log.
    pub pieces: String,
    /// What becomes of it, and why not yet.
    pub why: String,
}

/// The parts that make up the whole file.
pub fn uses(stats: &Stats) -> Vec<Use> {
    let of_kind = |kinds: &[&str]| {
        let found = stats.extents.iter().filter(|extents| kinds.contains(&extents.kind.as_str()));
        found.fold((0, 0), |(bytes, count), extents| (bytes + extents.bytes, count + extents.count))
    };
    let expired = stats.maps.iter().map(|map| map.expired_bytes).sum::<u64>().min(stats.live_bytes);
    let log_extents = of_kind(&["Log", "ReserveLog"]);
    let mut uses = Vec::new();
    let mut add = |word, bytes, count: u64, why: String| {
        let pieces = if count == 0 { String::new() } else { super::common::figures::count(count) };
        uses.push(Use { word, bytes, pieces, why });
    };
    add("alive", stats.live_bytes - expired, 0, String::new());
    if expired > 0 {
        add("expired", expired, 0, "upkeep removes it".to_owned());
    }
    add("dead", stats.dead_bytes, 0, dead(stats));
    add("unwritten", log_extents.0.saturating_sub(stats.log_bytes), 0, "the log goes on there".to_owned());
    let (bytes, count) = of_kind(&["Index"]);
    add("index", bytes, count, String::new());
    let (bytes, count) = of_kind(&["Retired", "Emptied"]);
    if count > 0 {
        add("retired", bytes, count, retired(stats));
    }
    let (bytes, count) = of_kind(&["Reserve"]);
    add("reserve", bytes, count, "for removals when full".to_owned());
    let (bytes, count) = of_kind(&["Table", "Live"]);
    add("tables", bytes, count, String::new());
    let (bytes, count) = of_kind(&["Free"]);
    add("free", bytes, count, "used before the file grows".to_owned());
    let known: u64 = uses.iter().map(|part| part.bytes).sum();
    uses.push(Use {
        word: "frame",
        bytes: stats.file_len.saturating_sub(known),
        pieces: String::new(),
        why: String::new(),
    });
    uses
}

/// Whether readers keep dead records of the log.
fn is_held(stats: &Stats) -> bool {
    stats.waiting.pins > 0 && stats.waiting.pins >= stats.dead_bytes / 2
}

fn dead(stats: &Stats) -> String {
    match stats.dead_bytes {
        0 => String::new(),
        _ if is_held(stats) => "a reader holds it".to_owned(),
        _ if !stats.bookmarks.is_empty() => "upkeep, or kept by bookmarks".to_owned(),
        _ => "upkeep cleans it".to_owned(),
    }
}

fn retired(stats: &Stats) -> String {
    let waiting = stats.waiting;
    let most = waiting.checkpoint.max(waiting.pins).max(waiting.next_use);
    match most {
        0 => String::new(),
        _ if most == waiting.pins => "waits for readers".to_owned(),
        _ if most == waiting.checkpoint => "waits for a checkpoint".to_owned(),
        _ => "waits for the next writer".to_owned(),
    }
}

/// What space waits for: a word, how much waits, and the holder that it waits for.
pub fn waiting(stats: &Stats) -> Vec<(&'static str, u64, String)> {
    let waiting = stats.waiting;
    let readers = if waiting.pins > 0 { oldest_pin(stats) } else { String::new() };
    vec![
        ("waits for readers", waiting.pins, readers),
        ("waits for a checkpoint", waiting.checkpoint, String::new()),
        ("waits for the next writer", waiting.next_use, String::new()),
    ]
}
