//! What is printed for people.

use std::fs;
use std::time::{Duration, SystemTime};

use slotlog::Store;

use super::support::{folder, read_only};
use super::*;

#[test]
fn tables_show_what_is_in_a_store() {
    let _turn = turn();
    let (_folder, path) = example_store();
    let text = printed(&path, &[]);

    let store = read_only(&path).unwrap();
    let figures = store.stats().unwrap();
    let len = fs::metadata(&path).unwrap().len();
    assert_eq!(line(&text, "file"), [format!("{} in {}", size(len), path.display())]);
    assert_eq!(line(&text, "uuid"), [figures.uuid.as_str()]);
    assert_eq!(line(&text, "commits"), ["1,051"]);
    let (version, created) = line(&text, "format")[0].split_once(", created ").unwrap();
    assert_eq!(version, format!("version {}", slotlog::format::VERSION));
    assert_recent(created);
    let (checkpoint, since) = line(&text, "checkpoint")[0].split_once(", ").unwrap();
    assert_recent(checkpoint);
    assert_eq!(since, "0 B of log since");

    let space = after(&text, "space");
    assert_eq!(line(space, "alive")[..2], [size(figures.live_bytes), percent(figures.live_bytes as f64 / len as f64)]);
    assert_eq!(line(space, "dead")[0], size(figures.dead_bytes));
    assert!(figures.dead_bytes > 3000, "200 of 1150 records are dead");

    let map = figures.maps.iter().find(|map| map.name == "(default)").unwrap();
    let shown = [size(map.live_bytes), size(map.index_bytes), percent(map.load)];
    assert_eq!(
        line(after(&text, "map"), "(default)")[..4],
        ["950".into(), shown[0].clone(), shown[1].clone(), shown[2].clone()]
    );

    let lengths = store.probe_lengths().unwrap();
    let (keys, lines) =
        (1..).zip(lengths).fold((0, 0), |(keys, lines), (at, found)| (keys + found, lines + at * found));
    let searches = line(after(&text, "lines per search"), "(default)");
    assert_eq!(searches[0], percent(lengths[0] as f64 / keys as f64));
    assert_eq!(searches[4], format!("{:.3}", lines as f64 / keys as f64));
}

#[track_caller]
fn assert_recent(text: &str) {
    assert!(text.ends_with('Z'), "{text}");
    let time = humantime::parse_rfc3339(text).unwrap();
    // The clock of a file is in milliseconds, and ours may be ahead of it by the rounding.
    let age = SystemTime::now().duration_since(time).unwrap();
    assert!(age < Duration::from_secs(600), "{text}");
}

#[test]
fn the_parts_of_the_file_add_up() {
    let _turn = turn();
    let (_folder, path) = mixed_store();
    let text = printed(&path, &[]);
    let (space, _) = after(&text, "space").trim_start().split_once("\n\n").unwrap();
    let shares: Vec<f64> = space
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().take_while(|word| *word != "%").last().unwrap().parse::<f64>().unwrap())
        .collect();
    assert!(shares.len() >= 8, "{space}");
    // Each is rounded.
    let sum = shares.iter().sum::<f64>();
    assert!((sum - 100.0).abs() <= 0.05 * shares.len() as f64, "{sum}: {space}");
}

#[test]
fn sizes_are_those_of_keys_and_values() {
    let _turn = turn();
    let folder = folder();
    let path = folder.path().join("sizes");
    let store = Store::open(&path).unwrap();
    for length in 1..=100 {
        store.insert(format!("key {length:03}"), vec![7; length]).unwrap();
    }
    store.insert("key", vec![1; 3 << 20]).unwrap();
    store.close().unwrap();
    let text = printed(&path, &[]);
    let sizes = after(&text, "sizes");
    assert_eq!(line(sizes, "(default)"), ["keys", "3 B", "7 B", "7 B", "7 B", "7 B"]);
    assert_eq!(line(sizes, "values"), ["1 B", "30.5 KiB", "51 B", "100 B", "3.0 MiB"]);
    assert_eq!(line(after(&text, "map"), "(default)")[..2], ["101", "3.0 MiB"]);
}

#[test]
fn lines_fit_80_columns_and_have_no_colours() {
    let _turn = turn();
    let (_empty, empty) = empty_store();
    for (_folder, path) in [example_store(), mixed_store(), (_empty, empty)] {
        for options in [&[][..], &["--explain"], &["--verify"], &["--map", "(default)"]] {
            let text = printed(&path, options);
            assert!(!text.contains('\x1b'), "{text}");
            for line in text.lines() {
                // The name of the file is what it is.
                let is_long = width(line) > 80 && !line.contains(path.to_str().unwrap());
                assert!(!is_long && line == line.trim_end(), "{line:?} in\n{text}");
            }
        }
    }
}

/// Columns on a terminal.
fn width(text: &str) -> usize {
    text.chars().map(|c| if ('\u{2e80}'..'\u{ff61}').contains(&c) { 2 } else { 1 }).sum()
}

#[test]
fn columns_are_aligned_in_any_script() {
    let _turn = turn();
    let (_folder, path) = mixed_store();
    let text = printed(&path, &[]);
    let (maps, _) = after(&text, "map ").trim_start().split_once("\n\n").unwrap();
    let places: Vec<usize> = maps
        .lines()
        .map(|line| width(&line[..line.find("->").or(line.find("types").map(|at| at + 4)).unwrap()]))
        .collect();
    assert_eq!(maps.lines().count(), 9, "{maps}");
    for name in ["Größe", "カート"] {
        let types = maps.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(types.ends_with("str -> u32"), "{types}");
        assert_eq!(width(&types[..types.find("str").unwrap()]), places[0] - 4, "{maps}");
    }
    assert_eq!(line(maps, "a\\nb").last(), Some(&"u32 -> (str, bool)"), "a name of two lines takes one");
}

fn empty_store() -> (TempDir, PathBuf) {
    let folder = folder();
    let path = folder.path().join("empty");
    Store::open(&path).unwrap().close().unwrap();
    (folder, path)
}

#[test]
fn an_empty_store_has_figures() {
    let _turn = turn();
    let (_folder, path) = empty_store();
    let text = printed(&path, &["--verify"]);
    assert_eq!(text.lines().next(), Some(&*format!("{}: clean", path.display())));
    assert_eq!(line(after(&text, "map"), "(default)")[..2], ["0", "0 B"]);
    assert_eq!(line(after(&text, "space"), "dead")[1], "0.0 %");
    assert!(!text.contains("lines per search"), "{text}");
}

#[test]
fn explanations_are_sentences() {
    let _turn = turn();
    let (_folder, path) = example_store();
    let text = printed(&path, &["--explain"]);
    let plain = printed(&path, &[]);
    for word in ["alive", "dead", "load", "p50, p99", "checkpoint", "waits for readers", "search", "reserve"] {
        let found = text.lines().position(|line| line.starts_with(&format!("    {word}: ")));
        let sentence: String =
            text.lines().skip(found.unwrap_or_else(|| panic!("{word} in\n{text}"))).take(4).collect();
        assert!(sentence.contains('.'), "{sentence}");
        assert!(!plain.contains(&format!("    {word}: ")), "{plain}");
    }
}

#[test]
fn one_map_is_shown_with_its_histograms() {
    let _turn = turn();
    let (_folder, path) = mixed_store();
    let text = printed(&path, &["--map", "images"]);
    assert!(!text.contains("users") && !text.contains("uuid"), "{text}");
    let values = after(&text, "values by length");
    assert!(values.contains("1.0 KiB to 2.0 KiB  ████"), "{text}");
    assert!(after(&text, "largest entries").contains("\"\"left\" & <forgotten>\\n.tar\""), "{text}");

    let output = stats(&path, &["--map", "image"]);
    assert_error(&output, &path, "there is no map \"image\"; the maps are ");
    assert!(stderr(&output).contains("\"images\""), "{}", stderr(&output));
}

#[test]
fn a_sample_is_marked_as_one() {
    let _turn = turn();
    let folder = folder();
    let path = folder.path().join("large");
    let store = Store::open(&path).unwrap();
    let mut batch = store.begin().unwrap();
    for number in 0..200_000u32 {
        batch.insert(number.to_le_bytes(), "…").unwrap();
    }
    batch.commit().unwrap();
    store.close().unwrap();
    let text = printed(&path, &[]);
    assert_eq!(line(after(&text, "sizes"), "(default)~")[..3], ["keys", "4 B", "4 B"]);
    assert!(text.contains("--exact looks at every entry"), "{text}");
    assert_eq!(line(after(&text, "map"), "(default)")[0], "200,000", "counters are exact");
    let text = printed(&path, &["--exact"]);
    assert_eq!(line(after(&text, "sizes"), "(default)")[..3], ["keys", "4 B", "4 B"]);
    assert!(!text.contains('~'), "{text}");
}

#[test]
fn there_are_colours_only_where_they_are_wanted() {
    let _turn = turn();
    let (_folder, path) = example_store();
    let printed = |variables: &[(&str, &str)]| {
        let output = super::support::command(STATS).arg(&path).envs(variables.iter().copied()).output().unwrap();
        stdout(&output)
    };
    let forced = printed(&[("CLICOLOR_FORCE", "1")]);
    assert!(forced.contains("\x1b[1m\x1b[32mclean\x1b[0m"), "{forced:?}");
    for variables in [&[][..], &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]] {
        assert!(!printed(variables).contains('\x1b'), "{variables:?}");
    }
}

/// Names of maps and of types may be any text, and so may the verdict that has them.
#[test]
fn a_terminal_is_not_confused() {
    let _turn = turn();
    let folder = folder();
    let path = folder.path().join("odd");
    let store = Store::open(&path).unwrap();
    let mut import = store.import();
    import.create_map("\u{1b}[2J\n\u{9b}", "str -> \u{1b}[31m\n", 0).unwrap();
    for number in 0..200 {
        let len = if number == 0 { 2 << 20 } else { 1 };
        import.insert("\u{1b}[2J\n\u{9b}", format!("{number}").as_bytes(), &vec![7; len], None).unwrap();
    }
    import.commit().unwrap();
    drop(import);
    store.close().unwrap();
    for options in [&[][..], &["--json"], &["--map", "\u{1b}[2J\n\u{9b}"], &["--watch", "--count", "1"]] {
        let text = printed(&path, options);
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        assert!(text.contains("outlier") || options.contains(&"--watch"), "{text}");
    }
}
