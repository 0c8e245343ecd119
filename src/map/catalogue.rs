//! The maps that a store has.

use std::sync::Arc;

use super::handle::Map;
use super::typed::Typed;
use crate::codec::Codec;
use crate::engine::Engine;
use crate::engine::change::batch::Batch;
use crate::engine::change::named::Named;
use crate::error::{Error, Result};
use crate::file::layout::{CATALOGUE, MapId};
use crate::store::Store;

/// A map as the catalogue of a store lists it; see [`Store::maps`].
///
/// ```
/// # let store = slotlog::Store::in_memory()?;
/// store.map_versioned::<str, u16>("ports", 2)?;
/// let info: slotlog::MapInfo = store.maps()?.remove(0);
/// assert_eq!((info.name.as_str(), info.types.as_str(), info.version), ("ports", "str -> u16", 2));
/// # Ok::<(), slotlog::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct MapInfo {
    /// Its name.
    pub name: String,
    /// The names of its key and value types.
    pub types: String,
    /// The [version](Store::map_versioned) of its types.
    pub version: u32,
}

impl Store {
    /// Opens the map of this name, with keys of type `K` and values of type `V`, and creates it if it is missing. See
    /// [`Map`]; [`Codec`] lists the types.
    ///
    /// Each map has its own index and takes 4 KiB and a few bytes when empty, so a store can have thousands. Opening
    /// one is a single lookup. The default map, which [`get`](Store::get) and [`insert`](Store::insert) use, has no
    /// name and is not among them.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let ports = store.map::<str, u16>("ports")?;
    /// ports.insert("http", 80)?;
    /// assert_eq!(ports.get("http")?, Some(80));
    ///
    /// let wrong = store.map::<str, u32>("ports");
    /// assert!(matches!(wrong, Err(slotlog::Error::TypeMismatch { .. })));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Other types
    ///
    /// The file records the types of a map by [their names](Codec::name), and a [version](Store::map_versioned) that
    /// you choose. To change the types, copy the map to a new one and give that the old name, in one transaction:
    /// readers see one or the other.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// # store.map::<str, u16>("ports")?.insert("http", 80)?;
    /// let old = store.map::<str, u16>("ports")?;
    /// let mut conversion = store.begin()?;
    /// let mut new = conversion.map_versioned::<str, (u16, String)>("ports.new", 1)?;
    /// for entry in old.iter()? {
    ///     let (name, port) = entry?;
    ///     new.insert(name, (port, "tcp".to_owned()))?;
    /// }
    /// conversion.rename_map("ports.new", "ports")?;
    /// conversion.commit()?;
    ///
    /// let ports = store.map_versioned::<str, (u16, String)>("ports", 1)?;
    /// assert_eq!(ports.get("http")?, Some((80, "tcp".to_owned())));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`TypeMismatch`](crate::Error::TypeMismatch) if the map has other types;
    /// [`InvalidName`](crate::Error::InvalidName) if the name is empty; [`NoSuchMap`](crate::Error::NoSuchMap) if it is
    /// missing and the store was opened for reading; when it is created, those of [`insert`](Store::insert).
    pub fn map<K: Codec + ?Sized, V: Codec + ?Sized>(&self, name: &str) -> Result<Map<K, V>> {
        self.map_versioned(name, 0)
    }

    /// [Opens a map](Store::map) whose types have a version besides their names: for codecs whose names do not describe
    /// the fields of a type, like [`Pod`](crate::Pod).
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let ports = store.map_versioned::<str, u16>("ports", 1)?;
    /// ports.insert("http", 80)?;
    /// assert_eq!(store.map_versioned::<str, u16>("ports", 1)?.get("http")?, Some(80));
    ///
    /// let wrong = store.map_versioned::<str, u16>("ports", 2);
    /// assert!(matches!(wrong, Err(slotlog::Error::TypeMismatch { .. })));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`map`](Store::map).
    pub fn map_versioned<K: Codec + ?Sized, V: Codec + ?Sized>(&self, name: &str, version: u32) -> Result<Map<K, V>> {
        Map::open(self, name, version)
    }

    /// Opens an existing map as bytes, [whatever its types](MapInfo::types): for tools that show and change any store.
    /// An empty name opens the default map. Nothing checks whether the bytes that are written are of the map's types.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.map::<str, u16>("ports")?.insert("http", 80)?;
    /// let bytes = store.map_as_bytes("ports")?;
    /// assert_eq!(bytes.get(b"http")?, Some(vec![80, 0]));
    ///
    /// store.insert("key", "value")?;
    /// assert!(store.map_as_bytes("")?.contains_key(b"key")?);
    /// assert!(matches!(store.map_as_bytes("prots"), Err(slotlog::Error::NoSuchMap { .. })));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`NoSuchMap`](crate::Error::NoSuchMap) if there is no map of this name; those of [`get`](Store::get).
    pub fn map_as_bytes(&self, name: &str) -> Result<Map<[u8], [u8]>> {
        let engine = self.engine();
        let missing = || Error::NoSuchMap { path: engine.mapping.path().to_owned(), map: name.to_owned() };
        if name.is_empty() {
            return Ok(self.bytes());
        }
        let id = engine.find_named(name)?.ok_or_else(missing)?.id;
        Ok(Map { store: self.clone(), typed: Typed::new(&engine, id, name) })
    }

    /// The default map, with all methods of a typed map: [`update`](Map::update), [`entry`](Map::entry),
    /// [`compare_exchange`](Map::compare_exchange), [`retain`](Map::retain), … What the store itself has for keys and
    /// values ([`get`](Store::get), [`insert`](Store::insert), …) is about the same map. Its name is empty.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.insert("visits", "1")?;
    /// let all = store.bytes();
    /// assert_eq!(all.compare_exchange(b"visits", Some(b"1"), Some(b"2"))?, Ok(()));
    /// assert_eq!(store.get("visits")?.as_deref(), Some(&b"2"[..]));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    pub fn bytes(&self) -> Map<[u8], [u8]> {
        Map { store: self.clone(), typed: Typed::default_map(&self.engine()) }
    }

    /// All named maps, sorted by name.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.map::<str, u16>("ports")?;
    /// let maps = store.maps()?;
    /// assert_eq!((maps[0].name.as_str(), maps[0].types.as_str()), ("ports", "str -> u16"));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`get`](Store::get).
    pub fn maps(&self) -> Result<Vec<MapInfo>> {
        let maps = self.engine().named_maps()?.into_iter();
        let mut maps: Vec<MapInfo> =
            maps.map(|(name, map)| MapInfo { name, types: map.types, version: map.version }).collect();
        maps.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(maps)
    }

    /// Which types the map with this name has, if there is one.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.map::<str, u32>("ages")?;
    /// assert_eq!(store.map_info("ages")?.map(|map| map.types).as_deref(), Some("str -> u32"));
    /// assert_eq!(store.map_info("names")?, None);
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Corrupt`](Error::Corrupt); [`PinsExhausted`](Error::PinsExhausted).
    pub fn map_info(&self, name: &str) -> Result<Option<MapInfo>> {
        let found = if name.is_empty() { None } else { self.engine().find_named(name)? };
        Ok(found.map(|map| MapInfo { name: name.to_owned(), types: map.types, version: map.version }))
    }

    /// Drops a map and everything in it, whatever its types, and returns whether it existed. One commit. Existing
    /// snapshots keep it; a remaining [`Map`] handle reads as empty, and writing to it fails with
    /// [`NoSuchMap`](crate::Error::NoSuchMap).
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// let ports = store.map::<str, u16>("ports")?;
    /// ports.insert("http", 80)?;
    /// assert!(store.drop_map("ports")?);
    /// assert!(!store.drop_map("ports")?);
    /// assert_eq!(ports.get("http")?, None);
    /// assert!(matches!(ports.insert("http", 80), Err(slotlog::Error::NoSuchMap { .. })));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](Store::insert).
    pub fn drop_map(&self, name: &str) -> Result<bool> {
        Ok(!name.is_empty() && self.engine().drop_named(name)?)
    }

    /// Renames the map `from` to `to`, and returns whether it existed. A map already named `to` is dropped. One commit.
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.map::<str, u16>("prots")?.insert("http", 80)?;
    /// assert!(store.rename_map("prots", "ports")?);
    /// assert!(!store.rename_map("prots", "ports")?);
    /// assert_eq!(store.map::<str, u16>("ports")?.get("http")?, Some(80));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`insert`](Store::insert); [`InvalidName`](crate::Error::InvalidName) if `to` is empty or too long.
    pub fn rename_map(&self, from: &str, to: &str) -> Result<bool> {
        self.engine().check_name(to)?;
        Ok(!from.is_empty() && self.engine().rename_named(from, to)?)
    }
}

impl<K: Codec + ?Sized, V: Codec + ?Sized> Map<K, V> {
    /// Opens the map of this name, and creates it if it is missing.
    fn open(store: &Store, name: &str, version: u32) -> Result<Map<K, V>> {
        let engine = store.engine();
        let found = find_or_create(&engine, name, version, types_of::<K, V>())?;
        Ok(Map { store: store.clone(), typed: Typed::new(&engine, found.id, name) })
    }
}

/// The name that a map with these keys and values has for its types.
pub(super) fn types_of<K: Codec + ?Sized, V: Codec + ?Sized>() -> String {
    format!("{} -> {}", K::name(), V::name())
}

/// The map of this name, which must have these types; it is created if it is missing.
pub(crate) fn find_or_create(engine: &Arc<Engine>, name: &str, version: u32, types: String) -> Result<Named> {
    engine.check_name(name)?;
    let found = match engine.find_named(name)? {
        Some(found) => found,
        None if engine.read_only => {
            return Err(Error::NoSuchMap { path: engine.mapping.path().to_owned(), map: name.to_owned() });
        }
        None => engine.create_named(name, version, &types)?,
    };
    check_types(engine, name, &found, Named { id: CATALOGUE, version, types })?;
    Ok(found)
}

/// The same within a batch.
pub(super) fn find_or_make(batch: &mut Batch, name: &str, version: u32, types: String) -> Result<MapId> {
    batch.engine().check_name(name)?;
    let found = batch.find_or_make_map(name, version, &types)?;
    check_types(batch.engine(), name, &found, Named { id: CATALOGUE, version, types })?;
    Ok(found.id)
}

/// Refuses a map with other types than those wanted.
fn check_types(engine: &Engine, name: &str, found: &Named, wanted: Named) -> Result<()> {
    if found.is_like(&wanted) {
        return Ok(());
    }
    let say = |named: &Named| match named.version {
        0 => named.types.clone(),
        version => format!("{}, version {version}", named.types),
    };
    let (path, map) = (engine.mapping.path().to_owned(), name.to_owned());
    Err(Error::TypeMismatch { path, map, found: say(found), wanted: say(&wanted) })
}
