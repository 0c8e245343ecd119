//! The page to look at.

use std::collections::BTreeSet;

use roxmltree::{Document, Node};

use super::*;

/// Elements without content. All others have an end tag.
const VOID: [&str; 2] = ["meta", "rect"];

fn page(path: &Path, options: &[&str]) -> String {
    let output = stats(path, &[&["--html", "-"], options].concat());
    assert!(output.status.code() < Some(2), "{}", stderr(&output));
    stdout(&output)
}

/// The page without its first line, as XML, which is stricter than HTML.
#[track_caller]
fn parsed(page: &str) -> Document<'_> {
    let document = page.strip_prefix("<!doctype html>\n").unwrap();
    Document::parse(document).unwrap_or_else(|error| panic!("{error} in\n{document}"))
}

/// The text of an element and everything in it.
fn text(node: Node<'_, '_>) -> String {
    let texts: Vec<&str> = node.descendants().filter_map(|part| part.text().filter(|_| part.is_text())).collect();
    texts.join(" ")
}

fn elements<'d, 'i>(document: &'d Document<'i>, class: &str) -> Vec<Node<'d, 'i>> {
    document
        .descendants()
        .filter(|node| node.attribute("class").is_some_and(|of| of.split(' ').any(|word| word == class)))
        .collect()
}

#[track_caller]
fn assert_is_valid(page: &str) {
    let document = parsed(page);
    let mut ids = BTreeSet::new();
    for node in document.descendants().filter(Node::is_element) {
        let name = node.tag_name().name();
        let known = "html head meta title style body main section h1 h2 h3 p span b i u ul ol li dl dt dd div \
                     small strong code a table tr td svg g rect details summary footer script";
        assert!(known.split_whitespace().any(|tag| tag == name), "<{name}>");
        // HTML reads `<i/>` as `<i>`.
        let source = &document.input_text()[node.range()];
        assert!(
            VOID.contains(&name) == source.ends_with("/>")
                && (VOID.contains(&name) || source.ends_with(&format!("</{name}>"))),
            "{source}"
        );
        if let Some(id) = node.attribute("id") {
            assert!(ids.insert(id.to_owned()), "two elements have the id {id}");
        }
        let in_paragraph = node.ancestors().skip(1).any(|above| above.tag_name().name() == "p");
        let is_block = ["section", "h1", "h2", "h3", "p", "ul", "ol", "dl", "div", "table", "details"].contains(&name);
        assert!(!(in_paragraph && is_block), "<{name}> ends its paragraph: {source}");
    }
    for node in document.descendants() {
        if let Some(target) = node.attribute("href") {
            assert!(target.strip_prefix('#').is_some_and(|id| ids.contains(id)), "the link {target} leads nowhere");
        }
    }
}

/// Nothing is fetched: not from the network, and not from other files.
#[track_caller]
fn assert_is_self_contained(page: &str) {
    for word in ["http", "//", "src=", "url(", "@import", "<link", "<img", "<iframe", "<base", "javascript"] {
        assert!(!page.contains(word), "{word} is in the page");
    }
}

#[test]
fn the_page_is_self_contained_and_valid() {
    let _turn = turn();
    let folder = support::folder();
    let empty = folder.path().join("empty");
    Store::open(&empty).unwrap().close().unwrap();
    let ((_one, example), (_other, mixed)) = (example_store(), mixed_store());
    for path in [&empty, &example, &mixed] {
        for options in [&[][..], &["--verify"]] {
            let page = page(path, options);
            assert_is_valid(&page);
            // Where the file is, is not ours.
            assert_is_self_contained(&page.replace(path.parent().unwrap().to_str().unwrap(), ""));
        }
    }
    damage(&mixed, b"the user 500, with a name and an address");
    let page = page(&mixed, &["--verify"]);
    assert_is_valid(&page);
    let document = parsed(&page);
    assert_eq!(text(elements(&document, "word")[0]), "damaged");
    assert!(!elements(&document, "finding").is_empty(), "the damage is in the map of the file");
}

#[test]
fn the_page_says_what_the_json_says() {
    let _turn = turn();
    let (_folder, path) = mixed_store();
    let page = page(&path, &[]);
    let document = parsed(&page);
    let script = document.descendants().find(|node| node.attribute("id") == Some("figures")).unwrap();
    let mut inside: Value = serde_json::from_str(script.text().unwrap()).unwrap();
    let mut printed = json(&stats(&path, &["--json", "--exact"]));
    // Each was made at its own time, and some things are judged by a sample that differs.
    for figures in [&mut inside, &mut printed] {
        figures["at"] = Value::Null;
        figures["stats"]["maps"].as_array_mut().unwrap().iter_mut().for_each(|map| map["expired_bytes"] = Value::Null);
    }
    assert_eq!(inside, printed);

    let figures = &printed["stats"];
    let number = |value: &Value| value.as_u64().unwrap();
    let shown = text(elements(&document, "figures")[0]);
    for figure in
        [size(number(&figures["file_len"])), size(number(&figures["live_bytes"])), count(number(&figures["commits"]))]
    {
        assert!(shown.contains(&figure), "{figure} in {shown}");
    }
    let verdict = elements(&document, "verdict")[0];
    assert_eq!(text(elements(&document, "word")[0]), printed["verdict"]["word"].as_str().unwrap());
    for remark in printed["verdict"]["remarks"].as_array().unwrap() {
        let what = &remark["what"].as_str().unwrap()[1..];
        assert!(text(verdict).contains(what), "{what} in {}", text(verdict));
    }
    let rows: Vec<String> = elements(&document, "map").into_iter().skip(1).map(text).collect();
    let of_users =
        figures["maps"].as_array().unwrap().iter().filter(|map| number(&map["id"]) != 0 && number(&map["entries"]) > 0);
    let of_users: Vec<&Value> = of_users.collect();
    assert_eq!(rows.len(), of_users.len());
    for map in of_users {
        let name = map["name"].as_str().unwrap();
        let row = rows.iter().find(|row| row.starts_with(name)).unwrap();
        let load = percent(map["load"].as_f64().unwrap());
        for figure in
            [map["types"].as_str().unwrap(), &count(number(&map["entries"])), &size(number(&map["live_bytes"])), &load]
        {
            assert!(row.contains(figure), "{figure} in {row}");
        }
    }
    for word in ["alive", "dead", "index", "reserve", "frame"] {
        assert!(text(elements(&document, "legend")[0]).contains(word), "{word}");
    }
    let drawn: usize = elements(&document, "row")
        .iter()
        .map(|row| row.descendants().filter(|part| part.has_tag_name("title")).count())
        .sum();
    let extents = printed["census"]["extents"].as_array().unwrap().len();
    assert!(drawn >= extents, "{drawn} parts are drawn, of {extents} extents");
}

#[test]
fn the_page_goes_into_a_file() {
    let _turn = turn();
    let (folder, path) = example_store();
    let out = folder.path().join("page.html");
    assert_eq!(printed(&path, &["--html", out.to_str().unwrap()]), "");
    assert_is_valid(&fs::read_to_string(out).unwrap());
}

#[test]
fn the_page_takes_the_place_of_no_store() {
    let (_turn, (_folder, path), (_other, other)) = (turn(), example_store(), mixed_store());
    let before = fs::read(&other).unwrap();
    for out in [&path, &other] {
        let output = stats(&path, &["--html", out.to_str().unwrap()]);
        assert_error(&output, out, "is a store, and left unchanged");
    }
    assert!(fs::read(&other).unwrap() == before);
}
