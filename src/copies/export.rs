//! Everything in a store, whatever its types.

use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;
use std::time::SystemTime;

use crate::engine::clock::time;
use crate::engine::read::cursor::Cursor;
use crate::engine::read::pinned::Pinned;
use crate::error::{Error, Result};
use crate::file::layout::{CATALOGUE, DEFAULT_MAP, MapId};
use crate::map::MapInfo;
use crate::snapshot::Snapshot;

/// All entries of all maps of a snapshot, as bytes; see [`Snapshot::export`].
pub struct Export<'s> {
    pinned: &'s Pinned,
    maps: Vec<MapInfo>,
    /// The maps to come, the next one last.
    left: Vec<(Arc<str>, MapId)>,
    current: Option<(Arc<str>, Cursor)>,
}

/// An entry of an [`Export`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportEntry<'s> {
    /// The name of the map; empty for the default map.
    pub map: Arc<str>,
    /// The key, as it is stored.
    pub key: &'s [u8],
    /// The value, as it is stored.
    pub value: &'s [u8],
    /// When the entry expires, if it does.
    pub expires: Option<SystemTime>,
}

impl Snapshot {
    /// All entries of all maps, whatever their types, as bytes: for tools that write them somewhere else, and for
    /// [`Store::import`](crate::Store::import) to take them back bit for bit. The default map comes first, then the
    /// named maps, sorted by name. Each entry is checked against its checksum.
    ///
    /// ```
    /// use slotlog::Store;
    ///
    /// # let (store, other) = (Store::in_memory()?, Store::in_memory()?);
    /// store.insert("key", "value")?;
    /// store.map::<str, u32>("ages")?.insert("Ada", 36)?;
    ///
    /// let snapshot = store.snapshot()?;
    /// let export = snapshot.export()?;
    /// let mut import = other.import();
    /// for map in export.maps() {
    ///     import.create_map(&map.name, &map.types, map.version)?;
    /// }
    /// for entry in export {
    ///     let entry = entry?;
    ///     import.insert(&entry.map, entry.key, entry.value, entry.expires)?;
    /// }
    /// assert_eq!(import.finish()?, 2);
    /// assert_eq!(other.map::<str, u32>("ages")?.get("Ada")?, Some(36));
    /// # Ok::<(), slotlog::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Corrupt`](crate::Error::Corrupt), also as an item; [`Forked`](crate::Error::Forked).
    pub fn export(&self) -> Result<Export<'_>> {
        let pinned = &self.pinned;
        let mut named = pinned.engine().named_maps_at(pinned.seq())?;
        named.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut left: Vec<(Arc<str>, MapId)> = vec![("".into(), DEFAULT_MAP)];
        left.extend(named.iter().map(|(name, named)| (name.as_str().into(), named.id)));
        left.reverse();
        let maps =
            named.into_iter().map(|(name, map)| MapInfo { name, types: map.types, version: map.version }).collect();
        Ok(Export { pinned, maps, left, current: None })
    }

    /// All entries of the map of this name, whatever its types, as bytes; an empty name is the default map. See
    /// [`export`](Snapshot::export).
    ///
    /// ```
    /// # let store = slotlog::Store::in_memory()?;
    /// store.map::<str, u32>("ages")?.insert("Ada", 36)?;
    /// let snapshot = store.snapshot()?;
    /// let mut ages = snapshot.export_map("ages")?;
    /// assert_eq!(ages.maps()[0].types, "str -> u32");
    /// let entry = ages.next().ok_or("there is one")??;
    /// assert_eq!((entry.key, entry.value), (&b"Ada"[..], &36u32.to_le_bytes()[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`NoSuchMap`](crate::Error::NoSuchMap) if there is no map of this name; those of [`export`](Snapshot::export).
    pub fn export_map(&self, name: &str) -> Result<Export<'_>> {
        let (pinned, engine) = (&self.pinned, self.pinned.engine());
        let (mut maps, mut map) = (Vec::new(), DEFAULT_MAP);
        if !name.is_empty() {
            let Some(record) = pinned.find(CATALOGUE, name.as_bytes())? else {
                return Err(Error::NoSuchMap { path: engine.mapping.path().to_owned(), map: name.to_owned() });
            };
            let named = engine.named_by(record)?;
            map = named.id;
            maps.push(MapInfo { name: name.to_owned(), types: named.types, version: named.version });
        }
        Ok(Export { pinned, maps, left: vec![(name.into(), map)], current: None })
    }
}

impl<'s> Export<'s> {
    /// All named maps, sorted by name, also those without entries.
    pub fn maps(&self) -> &[MapInfo] {
        &self.maps
    }

    fn step(&mut self) -> Result<Option<ExportEntry<'s>>> {
        loop {
            if let Some((name, cursor)) = &mut self.current
                && let Some(record) = self.pinned.next(cursor)
            {
                let record = record?;
                self.pinned.engine().check_crc(record)?;
                let (key, value, expires) = (record.key(), record.value(), record.expires().map(time));
                return Ok(Some(ExportEntry { map: Arc::clone(name), key, value, expires }));
            }
            let Some((name, map)) = self.left.pop() else { return Ok(None) };
            self.current = Some((name, Cursor::new(map, self.pinned.index(map)?.as_ref())));
        }
    }
}

impl fmt::Debug for Export<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export").field("maps", &self.maps).finish_non_exhaustive()
    }
}

impl<'s> Iterator for Export<'s> {
    type Item = Result<ExportEntry<'s>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

impl FusedIterator for Export<'_> {}
