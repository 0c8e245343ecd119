//! How a command opens a store, and a map of it.

use std::path::Path;

use slotlog::{Access, Durability, Map, MapInfo, Store};

use super::failure::Failure;
use super::text::{printable, shown};
use super::types::Types;

/// A map as bytes, whatever its types.
pub type BytesMap = Map<[u8], [u8]>;

/// A map as bytes, with the types that its bytes have.
pub struct Found {
    pub map: BytesMap,
    pub types: Types,
}

/// Opens a store that is there, to read it. Others may write to it meanwhile.
pub fn read(file: &Path) -> Result<Store, Failure> {
    Ok(Store::options().access(Access::ReadOnly).create(false).open(file)?)
}

/// Opens a store to write to it. What a command changes is durable once it returns.
pub fn write(file: &Path, create: bool) -> Result<Store, Failure> {
    Ok(Store::options().create(create).durability(Durability::Synced).open(file)?)
}

/// The map of this name, if there is one; without a name, the default map.
fn look_up(store: &Store, name: Option<&str>) -> Result<Option<Found>, Failure> {
    let Some(name) = name else { return Ok(Some(Found { map: store.map_as_bytes("")?, types: Types::BYTES })) };
    let info = store.map_info(name)?;
    let open = |info: MapInfo| Ok(Found { map: store.map_as_bytes(name)?, types: Types::named(&info.types) });
    info.map(open).transpose()
}

/// The map of this name; without one, the default map.
pub fn find(store: &Store, file: &Path, name: Option<&str>) -> Result<Found, Failure> {
    let missing = || no_map(store, file, name.unwrap_or_default());
    look_up(store, name)?.map_or_else(|| Err(missing()?), Ok)
}

/// The map of this name, which is created with these types if it is missing.
pub fn find_or_create(store: &Store, file: &Path, name: Option<&str>, types: Option<&str>) -> Result<Found, Failure> {
    match (name, types) {
        (Some(name), Some(types)) => {
            let version = store.map_info(name)?.map_or(0, |map| map.version);
            // If it is there, it must have these types.
            store.import().create_map(name, types, version)?;
            find(store, file, Some(name))
        }
        (None, Some(_)) => Err(Failure::new("the default map holds bytes; name another map with --map")),
        (name, None) => {
            let found = look_up(store, name)?;
            let advice = "; create it with --types, as in --types 'str -> u64'";
            let missing = || Ok(no_map(store, file, name.unwrap_or_default())?.with_advice(advice));
            found.map_or_else(|| Err(missing().unwrap_or_else(|failure| failure)), Ok)
        }
    }
}

/// That there is no map of a name, and which there are.
pub fn no_map(store: &Store, file: &Path, name: &str) -> Result<Failure, Failure> {
    const MOST: usize = 8;

    let maps = store.maps()?;
    let mut names: Vec<String> = maps.iter().take(MOST).map(|map| shown(map.name.as_bytes())).collect();
    if maps.len() > MOST {
        names.push(format!("and {} more", maps.len() - MOST));
    }
    let which = match (name, names.as_slice()) {
        ("(default)", _) => "leave --map away for the default map".to_owned(),
        (_, []) => "there is only the default map: leave --map away".to_owned(),
        (_, names) => format!("there are: {}", names.join(", ")),
    };
    Ok(Failure::new(format!("{}: no map \"{}\"; {which}", file.display(), shown(name.as_bytes()))))
}

/// The name of a map as it is printed.
pub fn printed(name: &str) -> String {
    if name.is_empty() { "(default)".to_owned() } else { printable(name.as_bytes()) }
}
