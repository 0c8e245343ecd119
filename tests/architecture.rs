//! The house rules that a compiler does not check: imports run down only, `unsafe` stays in its room, no work is left
//! behind, and files and functions stay short.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// All sources but tests and models, with their paths below `src`.
fn sources() -> Vec<(String, String)> {
    fn visit(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                visit(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("tests.rs")
                && !path.components().any(|part| part.as_os_str() == "tests")
                && !path.ends_with("models.rs")
            {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    visit(&root, &mut found);
    assert!(found.len() > 20, "the sources were found");
    let name = |path: &Path| path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
    found.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// The lines of code, without comments and without the tests at the end.
fn code(source: &str) -> impl Iterator<Item = &str> {
    source.lines().take_while(|line| *line != "mod tests {").filter(|line| !line.trim_start().starts_with("//"))
}

/// The floor of a room: 0 below, 2 on top. All floors may use the errors and sequence numbers, and tell events.
fn floor(room: &str) -> Option<u8> {
    match room.split('/').next()? {
        "error.rs" | "error" | "seq.rs" | "seq" | "telemetry.rs" | "telemetry" => None,
        "file" => Some(0),
        "engine" => Some(1),
        "bin" => Some(3),
        _ => Some(2),
    }
}

#[test]
fn imports_run_down_only() {
    for (name, source) in sources().iter().filter(|(name, _)| name != "lib.rs") {
        for line in code(source) {
            for (at, _) in line.match_indices("crate::") {
                let room: String = line[at + 7..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                // Names of the public interface are re-exported at the root.
                let target = match room.as_str() {
                    "file" | "engine" | "error" | "seq" | "telemetry" => floor(&room),
                    "Result" | "Error" => None,
                    _ => Some(2),
                };
                let (Some(here), Some(target)) = (floor(name), target) else { continue };
                assert!(target <= here, "{name} imports upwards: {line}");
            }
        }
    }
}

/// The rooms of the engine and of the top floor and their files, from the bottom to the top. Each file uses only those
/// before it; so there is no circle. `engine/mod.rs` is the frame that names a part of every room.
const ROOMS: [(&str, &[&str]); 21] = [
    ("engine", &["settings", "clock", "progress"]),
    ("engine/state", &["rest", "expired", "ledger", "superblocks", "head", "live_area", "words", "writer", "maps"]),
    ("engine/processes", &["gate", "lock_word", "entries", "notice"]),
    ("engine/lookup", &["protocol", "pin_table", "horizon", "versions", "marks", "keys", "bookmarks"]),
    ("engine/durable", &["reach", "flusher", "slices", "once_more", "superblock", "checkpoint"]),
    ("engine/write", &["slots", "reclaim", "reserve", "space", "regions", "commit", "turn", "tables", "sync"]),
    ("engine/read", &["kept", "sharing", "pins", "unpinned", "get", "cursor", "pinned", "history"]),
    ("engine/upkeep", &["resize", "expiry", "quarantine", "clean", "evict", "share", "compact", "scrub", "maintain"]),
    ("engine/change", &["straight", "one", "named", "batch", "savepoint", "maps", "origin", "bookmarks", "bounded"]),
    ("engine/open", &["path", "aside", "seat", "build", "recovery", "roads", "close", "place"]),
    ("engine/verify", &["report", "pace", "derived", "tables", "snapshot", "store"]),
    ("engine/salvage", &["reader", "front", "survey", "strands", "slots", "judge"]),
    ("engine/repair", &["report", "catalogue", "target", "run"]),
    ("engine/backup", &["report", "options", "copy"]),
    ("engine/feed", &["told", "names", "commits", "follow", "wire", "increment"]),
    ("codec", &["mod", "arg", "plain", "compound", "owned", "pod", "schema", "serialised"]),
    ("stats", &["serial", "distribution", "report", "published", "census"]),
    ("", &["background", "keys", "source", "changes", "snapshot", "transaction", "options", "store", "maintenance"]),
    ("map", &["typed", "changes", "iter", "value_ref", "handle", "catalogue", "entry", "snapshot", "transaction"]),
    ("copies", &["feed", "export", "import", "store"]),
    ("guide", &["mod"]),
];

/// The place of each file in that order.
fn ranks() -> BTreeMap<String, usize> {
    let files = ROOMS.iter().flat_map(|(room, files)| {
        files.iter().map(move |file| if room.is_empty() { format!("{file}.rs") } else { format!("{room}/{file}.rs") })
    });
    files.enumerate().map(|(rank, file)| (file, rank)).collect()
}

/// Methods that the standard library has as well: they count only as calls of the engine.
const OF_STD: [&str; 9] = ["chain", "clear", "drain", "find_map", "open", "pop", "read", "remove", "truncate"];

/// The paths that a source mentions: those it imports, by these words, and those it spells out.
fn paths(source: &str, import: &str) -> Vec<String> {
    /// Expands the lists of an import.
    fn expand(prefix: &str, rest: &str, found: &mut Vec<String>) {
        let rest = rest.trim();
        let Some((before, list)) = rest.split_once('{') else {
            // The last comma of a list is followed by nothing.
            if !rest.is_empty() {
                found.push(format!("{prefix}{rest}"));
            }
            return;
        };
        let (mut depth, mut start) = (0, 0);
        for (at, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => {
                    expand(&format!("{prefix}{before}"), &list[start..at], found);
                    return;
                }
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    expand(&format!("{prefix}{before}"), &list[start..at], found);
                    start = at + 1;
                }
                _ => {}
            }
        }
    }
    let code: String = code(source).flat_map(|line| [line, " "]).collect();
    let mut found = Vec::new();
    for import in code.split(';').filter_map(|statement| statement.split_once(import)).map(|(_, import)| import) {
        expand("", import, &mut found);
    }
    for (at, _) in code.match_indices("crate::") {
        found.push(code[at..].chars().take_while(|c| c.is_alphanumeric() || "_:".contains(*c)).collect());
    }
    found
}

/// The functions that a source defines.
fn definitions(source: &str) -> BTreeSet<String> {
    let after_fn = |line: &str| -> Option<String> {
        let (before, after) = line.split_once("fn ")?;
        let is_one = before.trim().split(' ').all(|word| word.is_empty() || word == "const" || word.starts_with("pub"));
        is_one.then(|| after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
    };
    code(source).filter_map(after_fn).collect()
}

/// The methods that a source calls, and whether it calls them on the engine or on itself.
fn calls(source: &str) -> BTreeSet<(String, bool)> {
    let mut found = BTreeSet::new();
    for line in code(source) {
        for (at, _) in line.match_indices('(') {
            let before = &line[..at];
            let name: String = before.chars().rev().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let name: String = name.chars().rev().collect();
            let receiver = &before[..before.len() - name.len()];
            let of_engine =
                ["self.", "engine.", "engine().", "Engine::", "Self::", "writing.", "write().", "writing()."];
            let is_of_engine = of_engine.iter().any(|end| receiver.ends_with(end));
            if !name.is_empty() && (receiver.ends_with('.') || is_of_engine) {
                found.insert((name, is_of_engine));
            }
        }
    }
    found
}

/// The file that a path from the root of the crate leads to, if it has a place in the order.
fn file_of(path: &str, ranks: &BTreeMap<String, usize>) -> Option<String> {
    let parts: Vec<&str> = path.split("::").collect();
    let room = |len: usize| parts[..len].join("/");
    let mut files =
        (1..=parts.len()).rev().flat_map(|len| [format!("{}.rs", room(len)), format!("{}/mod.rs", room(len))]);
    files.find(|file| ranks.contains_key(file))
}

/// The homes of the names of the public interface, which are re-exported at the root, and by their room.
fn homes_of_names(sources: &[(String, String)], ranks: &BTreeMap<String, usize>) -> BTreeMap<String, String> {
    let mut homes = BTreeMap::new();
    for (frame, room) in [("map/mod.rs", "map::"), ("lib.rs", "")] {
        let (_, source) = sources.iter().find(|(name, _)| name == frame).unwrap();
        for path in paths(source, "pub use ") {
            let name = path.rsplit("::").next().unwrap().to_owned();
            if let Some(home) = file_of(&format!("{room}{path}"), ranks) {
                homes.entry(name).or_insert(home);
            }
        }
    }
    homes
}

/// The arrows between the files of the engine and of the top floor, by imports and by calls, each with its cause.
///
/// A call counts if only one file has an engine function of that name. If several files of the engine have it, and the
/// engine is called, the lowest may be meant.
fn arrows(sources: &[(String, String)]) -> BTreeSet<(String, String, String)> {
    let ranks = ranks();
    let names = homes_of_names(sources, &ranks);
    let mut found = BTreeSet::new();
    let mut homes: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (name, source) in sources {
        for function in definitions(source) {
            homes.entry(function).or_default().push(name);
        }
    }
    for (name, source) in sources.iter().filter(|(name, _)| ranks.contains_key(name)) {
        let room = name.rsplit_once('/').map_or("", |(room, _)| room);
        for path in paths(source, "use ") {
            let path = path.replace("super::", &format!("crate::{}::", room.replace('/', "::")));
            let Some(path) = path.strip_prefix("crate::") else { continue };
            let target = names.get(path.strip_prefix("map::").unwrap_or(path));
            if let Some(target) = target.cloned().or_else(|| file_of(path, &ranks)) {
                found.insert((name.clone(), target, path.to_owned()));
            }
        }
        for (function, is_of_engine) in calls(source).into_iter().filter(|_| name.starts_with("engine/")) {
            let Some(homes) = homes.get(&function) else { continue };
            let of_engine = homes.iter().filter(|home| home.starts_with("engine/") && ranks.contains_key(**home));
            let of_engine = of_engine.min_by_key(|home| ranks[**home]);
            let Some(home) = of_engine.filter(|_| !homes.contains(&name.as_str())) else { continue };
            if is_of_engine || homes.len() == 1 && !OF_STD.contains(&function.as_str()) {
                found.insert((name.clone(), (*home).to_owned(), format!("{function}()")));
            }
        }
    }
    found.retain(|(from, to, _)| from != to);
    found
}

/// The arrows that do not run down.
fn arrows_up(sources: &[(String, String)]) -> Vec<String> {
    let ranks = ranks();
    let up = arrows(sources).into_iter().filter(|(from, to, _)| ranks[to] >= ranks[from]);
    up.map(|(from, to, what)| format!("{from} uses {to}: {what}")).collect()
}

#[test]
fn the_rooms_use_what_is_below_them_only() {
    let sources = sources();
    let is_frame = |name: &str| {
        ["lib.rs", "map/mod.rs", "copies/mod.rs", "stats/mod.rs"].contains(&name)
            || name.starts_with("engine/") && name.ends_with("/mod.rs")
    };
    let files: BTreeSet<&str> = sources
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|name| !is_frame(name) && floor(name).is_some_and(|floor| floor == 1 || floor == 2))
        .collect();
    let ranks = ranks();
    let listed: BTreeSet<&str> = ranks.keys().map(String::as_str).collect();
    assert_eq!(files, listed, "each file of the engine and of the top floor has a place in `ROOMS`");
    for (room, files) in ROOMS {
        assert!(files.len() <= 9, "{room} shows too much at once");
    }
    let up = arrows_up(&sources);
    assert!(up.is_empty(), "{} arrows run up:\n{}", up.len(), up.join("\n"));
}

/// The check finds what it is meant to find.
#[test]
fn an_arrow_that_runs_up_is_found() {
    let sources = sources();
    let arrows = arrows(&sources);
    let is_there = |from: &str, to: &str, what: &str| arrows.contains(&(from.into(), to.into(), what.into()));
    assert!(is_there("engine/change/one.rs", "engine/write/turn.rs", "turn()"), "a call from room to room");
    assert!(is_there("engine/write/space.rs", "engine/write/reserve.rs", "open_reserve()"), "a call within a room");
    assert!(is_there("engine/change/batch.rs", "engine/write/turn.rs", "engine::write::turn::LongTurn"), "an import");
    assert!(is_there("map/handle.rs", "store.rs", "Store"), "a name of the public interface");
    assert!(arrows.len() > 500, "{} arrows", arrows.len());

    for (file, line) in [
        ("engine/write/space.rs", "        self.upkeep_after(&[], [0; 4], 0);"),
        ("engine/write/space.rs", "        writing.create_map(map, blocks, seq)?;"),
        ("engine/write/space.rs", "        opening.end_opening(true)?;"),
        ("engine/write/space.rs", "use crate::engine::read::{\n    cursor::{self, Cursor},\n};"),
        ("engine/write/space.rs", "use super::regions;"),
        ("engine/state/words.rs", "    let at = crate::engine::write::space::Room::Growth;"),
        ("engine/clock.rs", "use super::state::words::Frozen;"),
        ("keys.rs", "use crate::source::Source;"),
        ("options.rs", "use crate::{Error, Store};"),
        ("store.rs", "use crate::Map;"),
        ("codec/mod.rs", "use crate::Snapshot;"),
        ("map/typed.rs", "use super::iter::Entries;"),
        ("map/value_ref.rs", "use super::Map;"),
    ] {
        let mut sources = sources.clone();
        let (_, source) = sources.iter_mut().find(|(name, _)| name == file).unwrap();
        source.insert_str(source.find("\n\n").unwrap(), &format!("\n\n{line}\n"));
        let up = arrows_up(&sources);
        assert!(!up.is_empty() && up.iter().all(|arrow| arrow.starts_with(file)), "{file}: {line}: {up:?}");
    }
}

#[test]
fn log_and_index_do_not_know_each_other() {
    for (name, source) in sources() {
        let forbidden = match name.as_str() {
            "file/log.rs" => "index::",
            "file/index.rs" => "log::",
            _ => continue,
        };
        assert!(code(&source).all(|line| !line.contains(forbidden)), "{name} knows its sibling");
    }
}

#[test]
fn the_binaries_see_the_public_interface_only() {
    for (name, source) in sources().iter().filter(|(name, _)| name.starts_with("bin/")) {
        assert!(!source.contains("crate::"), "{name} reaches into the library");
        // What the programs have in common is a folder beside theirs; and one of them completes the other one.
        let of_programs = ["../common/mod.rs", "../slotlog-stats/arguments.rs"];
        let own = of_programs.iter().fold(source.clone(), |own, path| own.replace(&format!("#[path = {path:?}]"), ""));
        assert!(!own.contains("#[path"), "{name} includes the library's files");
    }
}

#[test]
fn unsafe_stays_in_the_rooms_that_map_memory_and_lock_bytes() {
    for (name, source) in sources() {
        if name.starts_with("file/mapping/") || name.starts_with("file/locks/") {
            let lines: Vec<&str> = source.lines().collect();
            for (number, line) in lines.iter().enumerate().filter(|(_, line)| line.contains("unsafe {")) {
                let above = &lines[number.saturating_sub(6)..=number];
                assert!(above.iter().any(|line| line.contains("SAFETY:")), "{name}: no reason for `{}`", line.trim());
            }
        } else {
            assert!(code(&source).all(|line| !line.contains("unsafe")), "{name} has unsafe code");
        }
    }
}

/// Only a turn and an opening lend the right to change the store.
#[test]
fn who_writes_has_a_turn_or_opens_the_store() {
    for (name, source) in sources() {
        // A table may be made longer in the middle of a turn, for a pin that its holder needs.
        let lends = ["engine/state/writer.rs", "engine/write/turn.rs", "engine/write/tables.rs"];
        let lends = lends.contains(&name.as_str());
        let allowed = lends || name.starts_with("engine/open/");
        let taken = code(&source).find(|line| line.contains("lend_writing()") || line.contains("Writing {"));
        assert!(allowed || taken.is_none(), "{name} takes the right to write: {}", taken.unwrap_or_default());
    }
}

/// The file changes through the door of the mapping only: no other code writes to a file or accesses its memory.
#[test]
fn the_file_changes_through_one_door() {
    for (name, source) in sources() {
        let allowed = name.starts_with("file/mapping/") || name == "file/locks/os.rs" || name.starts_with("bin/");
        // Creating a file writes a mark before there is a mapping; and a commit is sent over a stream.
        let allowed = allowed || name == "engine/open/roads.rs" || name == "engine/feed/wire.rs";
        for line in code(&source) {
            let writes = [".set_len(", ".write_all(", "MmapRaw", "as_mut_ptr", "fs::write"];
            assert!(allowed || !writes.iter().any(|call| line.contains(call)), "{name} goes round the door: {line}");
        }
    }
}

#[test]
fn the_library_neither_prints_nor_starts_threads_nor_leaves_work_behind() {
    for (name, source) in sources() {
        for line in code(&source) {
            let loud = ["println!", "eprintln!", "print!(", "dbg!", "todo!", "unimplemented!", ".unwrap()"];
            let loud = loud.iter().find(|word| line.contains(**word));
            assert!(name.starts_with("bin/") || loud.is_none(), "{name}: {line}");
            // One room has the optional thread.
            let starts = ["thread::spawn", "thread::Builder", "thread::scope"].iter().any(|call| line.contains(call));
            assert!(name == "background.rs" || name.starts_with("bin/") || !starts, "{name} starts a thread: {line}");
        }
        for word in ["TODO", "FIXME", "XXX"] {
            assert!(!source.contains(word), "{name} has a {word}");
        }
    }
}

/// All files of Rust in a folder, with their paths.
fn files(folder: &str) -> Vec<(String, String)> {
    fn visit(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                visit(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut found);
    found.iter().map(|path| (path.to_string_lossy().into_owned(), fs::read_to_string(path).unwrap())).collect()
}

/// The formatter leaves comments and strings alone.
#[test]
fn lines_have_at_most_120_columns() {
    for folder in ["src", "tests", "benches", "examples", "fuzz"] {
        for (name, source) in files(folder) {
            for (number, line) in source.lines().enumerate() {
                assert!(line.chars().count() <= 120, "{name}:{}: {line}", number + 1);
            }
        }
    }
}

/// A longer file becomes a folder with a file for each purpose.
#[test]
fn files_have_at_most_1000_lines() {
    for folder in ["src", "tests", "benches", "examples", "fuzz"] {
        for (name, source) in files(folder) {
            assert!(source.lines().count() <= 1000, "{name} has {} lines", source.lines().count());
        }
    }
}

/// The functions that a source defines, with the number of their parameters except `self`.
fn parameters(source: &str) -> Vec<(String, usize)> {
    let code: String = code(source).flat_map(|line| [line, "\n"]).collect();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let starts_a_word = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let name: String = code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        // In a string, or the type of a function.
        if !starts_a_word || name.is_empty() {
            continue;
        }
        let mut parts = vec![String::new()];
        let (mut inside, mut before) = (Vec::new(), ' ');
        for c in code[at + 3 + name.len()..].chars() {
            match c {
                '(' | '[' | '{' | '<' => inside.push(c),
                ')' | ']' | '}' => drop(inside.pop()),
                '>' if before != '-' => drop(inside.pop()),
                _ => {}
            }
            before = c;
            match inside.as_slice() {
                ['('] if c == ',' => parts.push(String::new()),
                ['(', ..] => parts.last_mut().unwrap().push(c),
                // Generic parameters.
                ['<', ..] => {}
                _ if c == '>' => {}
                _ => break,
            }
        }
        let is_self = |part: &str| part.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "self");
        let is_one = |part: &&String| {
            let pattern = part.split(':').next().unwrap().trim_matches(|c: char| c.is_whitespace() || c == '(');
            !pattern.is_empty() && !is_self(pattern)
        };
        found.push((name, parts.iter().filter(is_one).count()));
    }
    found
}

/// With more parameters, two get mixed up, or some belong to a thing that has no name yet.
#[test]
fn functions_have_at_most_5_parameters() {
    let sources = sources();
    for (name, source) in &sources {
        for (function, count) in parameters(source) {
            assert!(count <= 5, "{name}: {function} has {count} parameters");
        }
    }
    let all: usize = sources.iter().map(|(_, source)| parameters(source).len()).sum();
    assert!(all > 1000, "{all} functions");
}

/// The check finds what it is meant to find.
#[test]
fn parameters_are_counted() {
    for (source, count) in [
        ("fn f() {}", 0),
        ("pub fn f(&self) -> (u8, u8) {}", 0),
        ("fn f<'a, T: Into<(u8, u8)>>(mut self, a: T,) {}", 1),
        ("    fn f(\n        &'a mut self,\n        (a, b): (u8, [u8; 2]),\n        c: BTreeMap<u8, u8>,\n    ) {", 2),
        ("fn f(a: impl FnMut(u8, u8) -> Option<u8>, b: &dyn Fn(u8) -> u8, S { c, .. }: S, d: u8) where T: Fn(u8) {", 4),
        ("fn f(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8);", 6),
        ("fn f(&self, a: u8, b: u8, c: u8, d: u8, e: fn(u8, u8) -> u8, f: u8) -> u8;", 6),
    ] {
        assert_eq!(parameters(source), [("f".to_owned(), count)], "{source}");
    }
}

/// A longer function does not fit on a screen.
#[test]
fn functions_have_at_most_70_lines() {
    for (name, source) in files("src") {
        let lines: Vec<&str> = source.lines().collect();
        for (start, line) in lines.iter().enumerate() {
            let code = line.trim_start();
            let words: Vec<&str> = code.split(' ').take_while(|word| !word.contains('(')).collect();
            let is_function = code.starts_with("fn ") || words.contains(&"fn") && !code.starts_with("//");
            if !is_function || line.ends_with(';') {
                continue;
            }
            let indent = &line[..line.len() - code.len()];
            let end = format!("{indent}}}");
            let length = lines[start..].iter().position(|line| line.starts_with(&end)).unwrap_or(0) + 1;
            // A test tells its story from beginning to end.
            let is_test = name.ends_with("tests.rs") || name.contains("/tests/");
            assert!(is_test || length <= 70, "{name}:{}: {length} lines: {line}", start + 1);
        }
    }
}
