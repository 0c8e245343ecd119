//! The first pages a stranger reads are true: links and commands lead somewhere, and the README names functions that
//! exist.

#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The folder of the guide.
const GUIDE: &str = "docs/guide";

/// The pages, with their names below the root.
fn pages() -> Vec<(String, String)> {
    let mut names: Vec<String> =
        ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"].map(String::from).to_vec();
    for folder in ["docs", GUIDE] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            // There are plots as well.
            if name.ends_with(".md") {
                names.push(format!("{folder}/{name}"));
            }
        }
    }
    assert!(names.len() > 7, "the pages were found");
    names.into_iter().map(|name| (read(&name), name)).map(|(text, name)| (name, text)).collect()
}

/// The sources with mostly public documentation.
fn sources() -> Vec<String> {
    let mut names = Vec::new();
    let programs = fs::read_dir(root().join("src/bin")).unwrap();
    let programs = programs.map(|entry| format!("src/bin/{}", entry.unwrap().file_name().into_string().unwrap()));
    let folders = ["src", "src/map", "src/codec", "src/file/layout"].map(str::to_owned);
    for folder in programs.chain(folders) {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".rs") {
                names.push(format!("{folder}/{name}"));
            }
        }
    }
    names.push("src/engine/settings.rs".into());
    names
}

/// The prose of the doc comments of a source: all its lines, with every other line emptied.
fn doc_comments(source: &str) -> String {
    let mut in_code = false;
    let mut prose = Vec::new();
    for line in source.lines().map(str::trim_start) {
        let doc = line.strip_prefix("///").or_else(|| line.strip_prefix("//!")).unwrap_or_default().trim_start();
        in_code ^= doc.starts_with("```");
        prose.push(if in_code { "" } else { doc });
    }
    prose.join("\n")
}

/// The text between each pair of `open` and `close` in a line.
fn between<'a>(text: &'a str, open: &'a str, close: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines()
        .flat_map(move |line| line.split(open).skip(1).filter_map(move |rest| rest.find(close).map(|end| &rest[..end])))
}

/// The definitions of links in a text, `[label]: target`. A sentence may begin like that, too.
fn definitions(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let definitions = text.lines().filter_map(|line| line.strip_prefix('[')?.split_once("]: "));
    definitions.filter(|(_, target)| !target.contains(' '))
}

/// The lines outside fenced blocks.
fn prose(text: &str) -> String {
    let parts: Vec<&str> = text.split("```").step_by(2).collect();
    parts.concat()
}

/// The anchor that a heading gets where Markdown is rendered.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_')).collect::<String>().replace(' ', "-")
}

#[test]
fn the_readme_fits_two_screens() {
    let lines = read("README.md").lines().count();
    assert!(lines <= 130, "the README has {lines} lines: move what is long to docs/");
}

#[test]
fn the_front_page_of_the_crate_leads_to_its_items_soon() {
    let lines = read("src/lib.rs").lines().position(|line| !line.starts_with("//!") && !line.is_empty()).unwrap();
    assert!(lines <= 120, "the front page has {lines} lines: move what is long to docs/");
}

#[test]
fn links_lead_to_a_file_and_a_heading_in_it() {
    let mut found = 0;
    for (name, text) in pages() {
        let prose = prose(&text);
        let defined = definitions(&prose).map(|(_, target)| target);
        for link in between(&prose, "](", ")").chain(defined).filter(|link| !link.contains("://")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let here = root().join(&name);
            let target = if file.is_empty() { here } else { here.parent().unwrap().join(file) };
            assert!(target.exists(), "{name}: the link {link} leads nowhere");
            if !heading.is_empty() {
                let target = fs::read_to_string(target).unwrap();
                let mut headings = target.lines().filter(|line| line.starts_with('#'));
                let leads = headings.any(|line| anchor(line.trim_start_matches('#')) == heading);
                assert!(leads, "{name}: the link {link} leads to no heading");
            }
            found += 1;
        }
    }
    assert!(found > 15, "the links were found");
}

/// The pages of the guide by their names, without its index.
fn guide() -> Vec<(String, String)> {
    let of_guide = |name: &str| Some(name.strip_prefix(GUIDE)?.strip_prefix('/')?.strip_suffix(".md")?.to_owned());
    let pages = pages().into_iter().filter_map(|(name, text)| Some((of_guide(&name)?, text)));
    let pages: Vec<_> = pages.filter(|(name, _)| name != "README").collect();
    assert!(pages.len() >= 15, "the guide was found");
    pages
}

#[test]
fn the_guide_lists_and_compiles_each_of_its_pages() {
    let (index, modules) = (read(&format!("{GUIDE}/README.md")), read("src/guide/mod.rs"));
    for (name, _) in guide() {
        assert!(index.contains(&format!("][{name}]")), "the index of the guide has no link to {name}");
        assert!(modules.contains(&format!("page!({name});")), "the programs of {name} are not compiled");
    }
}

#[test]
fn the_questions_have_short_answers_that_lead_on() {
    let text = read(&format!("{GUIDE}/questions.md"));
    let answers: Vec<&str> = text.split("\n# ").skip(1).collect();
    assert!(answers.len() >= 30, "there are {} questions", answers.len());
    for answer in answers {
        let (question, rest) = answer.split_once('\n').unwrap();
        // The definitions of all links come after the last answer.
        let answer: Vec<&str> = rest.lines().filter(|line| definitions(line).next().is_none()).collect();
        let answer = answer.join("\n");
        assert!(answer.contains("][") || answer.contains("]("), "no link: {question}");
        assert!(answer.trim().lines().count() <= 4, "a short answer: {question}");
    }
}

/// Each link works in two places: on a forge by its definition in the page, in rustdoc by that in `links.txt`.
#[test]
fn the_links_of_the_guide_lead_to_the_same_place_in_rustdoc() {
    let known = read(&format!("{GUIDE}/links.txt"));
    let known: Vec<(&str, &str)> = definitions(&known).collect();
    let mut used = Vec::new();
    let mut pages = guide();
    pages.push(("README".to_owned(), read(&format!("{GUIDE}/README.md"))));
    for (name, text) in &pages {
        let prose = prose(text);
        for (label, target) in definitions(&prose) {
            let (file, heading) = target.split_once(".md").unwrap();
            let there = match file.strip_prefix("../") {
                None => format!("crate::guide::{file}{heading}"),
                Some(module @ ("care" | "design")) => format!("crate::{module}{heading}"),
                Some(other) => format!("https://docs.rs/crate/slotlog/latest/source/docs/{other}.md"),
            };
            assert!(known.contains(&(label, &there)), "{GUIDE}/links.txt lacks [{label}]: {there}");
            used.push(label.to_owned());
        }
        for label in between(&prose, "][", "]") {
            assert!(definitions(&prose).any(|(defined, _)| defined == label), "{name}: [{label}] is not defined");
        }
    }
    for (label, _) in known {
        assert!(used.iter().any(|used| used == label), "{GUIDE}/links.txt has [{label}], which no page needs");
    }
}

/// `cargo test` does not build the other stores, so their half of that page is a test of the package that does.
#[test]
fn what_the_guide_shows_of_other_stores_is_compiled_beside_them() {
    let lines = |text: &str| text.lines().map(|line| format!("{}\n", line.trim())).collect::<String>();
    let (page, compiled) = (read(&format!("{GUIDE}/migrating.md")), lines(&read("benches/peers/tests/migrating.rs")));
    let blocks: Vec<&str> = page.split("```").skip(1).step_by(2).collect();
    let of_others: Vec<&str> = blocks.iter().filter_map(|block| block.strip_prefix("rust,ignore\n")).collect();
    assert_eq!(of_others.len(), 8, "four stores, and a program that moves the data of each");
    for block in of_others {
        assert!(compiled.contains(&lines(block)), "benches/peers/tests/migrating.rs does not have:\n{block}");
    }
}

#[test]
fn commands_name_targets_that_exist() {
    let mut found = 0;
    for (name, text) in pages() {
        let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c == '`').collect();
        for pair in words.windows(2) {
            let target = pair[1].trim_end_matches([',', '.', ':', ';', ')']);
            let path = match pair[0] {
                "--example" => format!("examples/{target}.rs"),
                "--bench" => format!("benches/{target}.rs"),
                // Of the package of other stores.
                "--test" if target == "migrating" => format!("benches/peers/tests/{target}.rs"),
                "--test" => format!("tests/{target}.rs"),
                "--bin" => format!("src/bin/{target}.rs"),
                _ => continue,
            };
            let room = Path::new(path.trim_end_matches(".rs")).join("main.rs");
            assert!(root().join(&path).exists() || root().join(room).exists(), "{name}: there is no {path}");
            found += 1;
        }
    }
    assert!(found > 15, "the commands were found");
}

#[test]
fn paths_in_the_prose_exist() {
    let mut found = 0;
    for (name, text) in pages() {
        let prose = prose(&text);
        for (_, code) in prose.split('`').enumerate().filter(|(at, _)| at % 2 == 1) {
            let path = code.split(' ').next().unwrap();
            let rooms = ["src/", "tests/", "docs/", "examples/", "benches/", "fuzz/", ".ci/"];
            // Generated files, and placeholders.
            let any = ["fuzz/corpus", "<", "*", "…"].iter().any(|part| path.contains(part));
            if rooms.iter().any(|room| path.starts_with(room)) && !any {
                assert!(root().join(path).exists(), "{name}: there is no {path}");
                found += 1;
            }
        }
    }
    assert!(found > 15, "the paths were found");
}

#[test]
fn the_functions_that_explain_the_source_are_where_the_readme_says() {
    let readme = read("README.md");
    let rows: Vec<&str> =
        readme.lines().filter(|line| line.starts_with("| `") && line.contains("` in `src/")).collect();
    assert_eq!(rows.len(), 6, "six functions explain the whole");
    for row in rows {
        let mut code = row.split('`').skip(1).step_by(2);
        let (function, file) = (code.next().unwrap(), code.next().unwrap());
        let source = read(file);
        let defined = [format!("fn {function}("), format!("fn {function}<")];
        assert!(defined.iter().any(|start| source.contains(start)), "{file} has no function {function}");
    }
}

/// The program is run by `tests/examples.rs`.
#[test]
fn the_program_of_the_readme_is_the_example_visits() {
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
    let (readme, example) = (read("README.md"), read("examples/visits.rs"));
    let program = readme.split("```").nth(1).unwrap().split_once('\n').unwrap().1;
    assert!(program.contains("fn main()"), "the program comes first");
    assert!(words(&example).ends_with(&words(program)), "the README and examples/visits.rs differ");
}

/// Phrases that were translated word by word: the subject is missing, or the field has its own word.
#[test]
fn the_pages_are_in_plain_english() {
    let mut pages = pages();
    pages.extend(sources().into_iter().map(|name| (name.clone(), doc_comments(&read(&name)))));
    assert!(pages.len() > 30, "the sources were found");
    for (name, text) in pages {
        for (number, line) in text.lines().enumerate() {
            let words: Vec<String> =
                line.split(|c: char| !c.is_alphanumeric()).map(str::to_lowercase).filter(|w| !w.is_empty()).collect();
            for word in ["whoever", "whom", "whatsoever", "nobody", "shall"] {
                assert!(!words.iter().any(|w| w == word), "{name}:{}: say it without `{word}`: {line}", number + 1);
            }
            assert!(!line.to_lowercase().contains("so many"), "{name}:{}: {line}", number + 1);
            // Rows of tables, and definitions of links.
            let is_one_line = line.starts_with('|') || definitions(line).next().is_some();
            let is_wide = line.chars().count() > 120 && !is_one_line;
            assert!(!is_wide, "{name}:{}: longer than 120 columns", number + 1);
        }
    }
}
