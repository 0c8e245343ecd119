//! A JSON object on each line. An entry is `{"key": …, "value": …}`, with `"map"` unless it belongs to the default map,
//! and with `"expires"` if it does. A map is `{"map": …, "types": …, "version": …}`, before its entries.

use std::rc::Rc;

use serde::Deserialize;
use serde_json::Value as Json;

use super::super::json;
use super::super::types::{Type, Types};
use super::input::Input;
use super::{Entry, Failure, Head, Incoming, Knows, Outgoing, Reads, deadline, read_deadline};

/// Appends the line of a map.
pub fn write_map(map: &Head, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"map\":");
    json::write_string(&map.name, out);
    out.extend_from_slice(b",\"types\":");
    json::write_string(&map.types, out);
    out.extend_from_slice(format!(",\"version\":{}}}\n", map.version).as_bytes());
}

/// Appends the line of an entry of a map.
pub fn write(map: &str, types: &Types, entry: &Outgoing<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    if !map.is_empty() {
        out.extend_from_slice(b"\"map\":");
        json::write_string(map, out);
        out.push(b',');
    }
    out.extend_from_slice(b"\"key\":");
    json::write(&types.key, entry.key, out);
    out.extend_from_slice(b",\"value\":");
    json::write(&types.value, entry.value, out);
    if let Some(at) = entry.expires {
        out.extend_from_slice(b",\"expires\":");
        json::write_string(&deadline(at), out);
    }
    out.extend_from_slice(b"}\n");
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    map: Option<String>,
    types: Option<String>,
    #[serde(default)]
    version: u32,
    key: Option<Json>,
    /// Of a set, there is none.
    #[serde(default)]
    value: Json,
    expires: Option<String>,
}

pub struct Reader {
    input: Input,
}

impl Reader {
    pub fn new(input: Input) -> Reader {
        Reader { input }
    }
}

impl Reads for Reader {
    fn next(&mut self, maps: &mut dyn Knows) -> Result<Option<Incoming>, Failure> {
        loop {
            let Some(line) = self.input.line()? else { return Ok(None) };
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            if !line.trim_ascii_start().starts_with(b"{") {
                return Err(Failure::new("expected a JSON object, {\"key\": …, \"value\": …}"));
            }
            let line: Line = serde_json::from_slice(line).map_err(|error| Failure::new(without_place(&error)))?;
            return incoming(line, maps).map(Some);
        }
    }

    fn is_at_hand(&mut self) -> bool {
        self.input.has_line()
    }

    fn done(&self) -> u64 {
        self.input.done()
    }

    fn place(&self) -> String {
        self.input.place()
    }
}

/// What is wrong, with the column, since the line is another one than the parser knows.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.rsplit_once(" at line").map_or(text.as_str(), |(what, _)| what);
    format!("column {}: {what}", error.column())
}

fn incoming(line: Line, maps: &mut dyn Knows) -> Result<Incoming, Failure> {
    if let (Some(name), Some(types)) = (&line.map, line.types) {
        if line.key.is_some() || !line.value.is_null() {
            return Err(Failure::new("\"types\" stand in a line of their own, before the entries of the map"));
        }
        return Ok(Incoming::Map(Head { name: name.clone(), types, version: line.version }));
    }
    let types = maps.types_of(line.map.as_deref())?;
    let part = |what: &str, of: &Type, json: &Json| {
        json::read(of, json).map_err(|error| Failure::new(format!("the {what}: {error}")))
    };
    let missing = || Failure::new("expected \"key\" and \"value\", or \"map\" and \"types\"");
    // A key of no bytes may be `null`.
    let key = line.key.unwrap_or(Json::Null);
    if key.is_null() && types.key != Type::Unit && !matches!(types.key, Type::Option(_)) {
        return Err(missing());
    }
    let (key, value) = (part("key", &types.key, &key)?, part("value", &types.value, &line.value)?);
    let expires = line.expires.map(|text| read_deadline(&text)).transpose().map_err(Failure::new)?;
    Ok(Incoming::Entry(Entry { map: line.map.map(Rc::from), key, value, expires }))
}
