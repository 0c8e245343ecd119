//! The house rules that a compiler does not check: imports run down only, `unsafe` stays in its room, and nothing is
//! left lying about.

#![allow(missing_docs, clippy::unwrap_used)]

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

/// The lines of code, without comments and without what follows the tests.
fn code(source: &str) -> impl Iterator<Item = &str> {
    source.lines().take_while(|line| *line != "mod tests {").filter(|line| !line.trim_start().starts_with("//"))
}

/// The floor of a room: 0 below, 2 on top. The errors are what all floors stand on.
fn floor(room: &str) -> Option<u8> {
    match room.split('/').next()? {
        "error.rs" | "error" => None,
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
                    "file" | "engine" | "error" => floor(&room),
                    "Result" | "Error" => None,
                    _ => Some(2),
                };
                let (Some(here), Some(target)) = (floor(name), target) else { continue };
                assert!(target <= here, "{name} imports upwards: {line}");
            }
        }
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
        assert!(!source.contains("#[path"), "{name} includes the library's files");
    }
}

#[test]
fn unsafe_stays_in_the_rooms_that_map_memory_and_lock_bytes() {
    for (name, source) in sources() {
        if name.starts_with("file/region/") || name.starts_with("file/locks/") {
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

/// The file changes through the door of the region only: nobody else writes to a file or gets at its memory.
#[test]
fn the_file_changes_through_one_door() {
    for (name, source) in sources() {
        let allowed = name.starts_with("file/region/") || name == "file/locks/os.rs" || name.starts_with("bin/");
        // Creating a file writes a mark before there is a mapping.
        let allowed = allowed || name == "engine/open/roads.rs";
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
            // One room has a thread, for those who ask for it.
            let starts = ["thread::spawn", "thread::Builder", "thread::scope"].iter().any(|call| line.contains(call));
            assert!(name == "background.rs" || !starts, "{name} starts a thread: {line}");
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

/// What is longer becomes a folder with a file for each purpose.
#[test]
fn files_have_at_most_1000_lines() {
    for folder in ["src", "tests", "benches", "examples", "fuzz"] {
        for (name, source) in files(folder) {
            assert!(source.lines().count() <= 1000, "{name} has {} lines", source.lines().count());
        }
    }
}

/// What does not fit on a screen is not seen whole.
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
