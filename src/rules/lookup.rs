//! Lookup tables: what is known of users, of places, of anything by a key, from a file or a table of the database. Each is held
//! in memory whole and read again when it changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use tokio_util::sync::CancellationToken;

use super::value::Val;
use crate::config;
use crate::metrics::PoolMetrics;
use crate::store::{self, Store};

/// The most rows of a table.
const ROWS_MAX: usize = 1_000_000;
/// The largest file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// A table that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The file is missing or wrong.
    #[error("lookup {name:?}: {file}: {problem}")]
    File {
        /// The lookup.
        name: String,
        /// The file.
        file: String,
        /// What is wrong with it, and in which line.
        problem: String,
    },
    /// The database's table is missing or wrong.
    #[error("lookup {name:?}: table {table:?}: {problem}")]
    Table {
        /// The lookup.
        name: String,
        /// The table.
        table: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The database could not be asked.
    #[error(transparent)]
    Store(#[from] store::Error),
}

type Row = serde_json::Map<String, serde_json::Value>;

#[derive(Debug, Default)]
struct Table {
    rows: HashMap<String, Row>,
    /// Those that a row can have, where it is known.
    columns: Option<BTreeSet<String>>,
}

/// The tables of a pool. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Lookups(Arc<BTreeMap<String, Arc<Lookup>>>);

#[derive(Debug)]
pub(super) struct Lookup {
    name: String,
    config: config::Lookup,
    table: RwLock<Arc<Table>>,
    /// The file as it was when it was last read.
    seen: Mutex<Option<(SystemTime, u64)>>,
}

impl Lookups {
    /// Reads those that are files; those of the database are empty until [`load`](Self::load).
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn from_files(config: &BTreeMap<String, config::Lookup>) -> Result<Self, LookupError> {
        let lookups = config.iter().map(|(name, config)| {
            let (table, seen) = (RwLock::default(), Mutex::default());
            let lookup = Lookup { name: name.clone(), config: config.clone(), table, seen };
            if let Some(file) = &config.file {
                lookup.put(lookup.read(file)?);
            }
            Ok((name.clone(), Arc::new(lookup)))
        });
        Ok(Self(Arc::new(lookups.collect::<Result<_, LookupError>>()?)))
    }

    /// Reads those of the database.
    ///
    /// # Errors
    /// A table cannot be used, or the database not be asked.
    pub async fn load(&self, store: &dyn Store) -> Result<(), LookupError> {
        for lookup in self.0.values() {
            if let Some(table) = &lookup.config.table {
                lookup.put(lookup.fetch(store, table).await?);
            }
        }
        Ok(())
    }

    /// Looks at them again and again: at a file's time and size, and at all of a table. One that cannot be used stays as it
    /// was, which is said and counted.
    pub(crate) async fn watch(
        self,
        pool: Arc<str>,
        store: Arc<dyn Store>,
        metrics: PoolMetrics,
        stop: CancellationToken,
    ) {
        let watching = self.0.values().map(|lookup| lookup.watch(&pool, &*store, &metrics));
        tokio::select! {
            () = stop.cancelled() => {}
            _ = futures_util::future::join_all(watching) => {}
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<Lookup>> {
        self.0.get(name).cloned()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl Lookup {
    /// A column of a key's row.
    pub(super) fn get(&self, key: &str, column: &str) -> Option<Val<'static>> {
        let table = Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner));
        table.rows.get(key)?.get(column).map(Val::of_json)
    }

    /// The columns that there are, if this is none of them.
    pub(super) fn unknown_column(&self, column: &str) -> Option<String> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let columns = table.columns.as_ref().filter(|columns| !columns.contains(column))?;
        Some(columns.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
    }

    fn put(&self, table: Table) {
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }

    async fn watch(self: &Arc<Self>, pool: &str, store: &dyn Store, metrics: &PoolMetrics) {
        let mut told = None;
        loop {
            tokio::time::sleep(self.config.refresh).await;
            let read = match (&self.config.file, &self.config.table) {
                (Some(file), _) if self.is_as_seen(file) => continue,
                (Some(file), _) => {
                    let (lookup, file) = (Arc::clone(self), file.clone());
                    match tokio::task::spawn_blocking(move || lookup.read(&file)).await {
                        Ok(read) => read,
                        Err(_) => continue,
                    }
                }
                (None, Some(table)) => self.fetch(store, table).await,
                (None, None) => return,
            };
            let error = read.map(|table| self.put(table)).err().map(|error| error.to_string());
            metrics.reloaded(error.is_none());
            if let Some(error) = error.as_ref().filter(|error| told.as_ref() != Some(*error)) {
                tracing::warn!(
                    pool,
                    lookup = self.name,
                    error,
                    "a lookup table cannot be read: the one before stays in use"
                );
            }
            told = error;
        }
    }

    fn is_as_seen(&self, file: &Path) -> bool {
        let stamp = stamp(file);
        stamp.is_some() && stamp == *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks.
    fn read(&self, file: &Path) -> Result<Table, LookupError> {
        let wrong =
            |problem: String| LookupError::File { name: self.name.clone(), file: file.display().to_string(), problem };
        let seen = stamp(file);
        if let Some((_, bytes)) = seen.filter(|(_, bytes)| *bytes > FILE_BYTES_MAX) {
            return Err(wrong(format!("it has {bytes} bytes, and {FILE_BYTES_MAX} are the most")));
        }
        let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
        let is_json = file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        let table = if is_json { of_json(&text, &self.config.key) } else { of_csv(&text, &self.config.key) };
        let table = table.map_err(wrong)?;
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        Ok(table)
    }

    async fn fetch(&self, store: &dyn Store, table: &str) -> Result<Table, LookupError> {
        let wrong = |problem: String| LookupError::Table { name: self.name.clone(), table: table.to_owned(), problem };
        let key = &self.config.key;
        let columns: BTreeSet<String> = store.describe(table).await?.into_iter().map(|column| column.name).collect();
        if !columns.contains(key) {
            return Err(wrong(format!("it has no column {key:?}")));
        }
        let names: Vec<&str> = columns.iter().map(String::as_str).collect();
        let limit = i64::try_from(ROWS_MAX + 1).unwrap_or(i64::MAX);
        let rows = store.rows_as_json(table, &names, limit).await?;
        let rows = rows.iter().map(|row| serde_json::from_str::<Row>(row).map_err(|error| wrong(error.to_string())));
        let rows = keyed(rows.collect::<Result<Vec<_>, _>>()?, key).map_err(wrong)?;
        Ok(Table { rows, columns: Some(columns) })
    }
}

/// When a file was changed and how long it is.
fn stamp(file: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// The first line names the columns.
fn of_csv(text: &str, key: &str) -> Result<Table, String> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    let columns: Vec<String> = reader.headers().map_err(|error| error.to_string())?.iter().map(str::to_owned).collect();
    if !columns.iter().any(|column| column == key) {
        return Err(format!("line 1 names no column {key:?}: it has {}", columns.join(", ")));
    }
    let mut rows = Vec::new();
    for record in reader.records().take(ROWS_MAX + 1) {
        let record = record.map_err(|error| error.to_string())?;
        let cells = columns.iter().cloned().zip(record.iter().map(|cell| serde_json::Value::String(cell.to_owned())));
        // An empty cell is as good as none: the attribute is missing.
        rows.push(cells.filter(|(_, cell)| cell != "").collect());
    }
    Ok(Table { rows: keyed(rows, key)?, columns: Some(columns.into_iter().collect()) })
}

/// A list of objects that have the key, or an object of objects by the key.
fn of_json(text: &str, key: &str) -> Result<Table, String> {
    let whole: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let row = |value, place: String| match value {
        serde_json::Value::Object(row) => Ok(row),
        _ => Err(format!("{place} is not an object")),
    };
    let rows = match whole {
        serde_json::Value::Array(list) => {
            let rows = list.into_iter().enumerate().map(|(at, value)| row(value, format!("element {at}")));
            keyed(rows.collect::<Result<_, _>>()?, key)?
        }
        serde_json::Value::Object(map) => {
            let rows = map.into_iter().map(|(key, value)| row(value, format!("{key:?}")).map(|row| (key, row)));
            rows.collect::<Result<_, _>>()?
        }
        _ => return Err("expected a list of objects, or an object of objects".to_owned()),
    };
    Ok(Table { rows: bounded(rows)?, columns: None })
}

fn keyed(rows: Vec<Row>, key: &str) -> Result<HashMap<String, Row>, String> {
    let mut keyed = HashMap::with_capacity(rows.len());
    for (at, row) in rows.into_iter().enumerate() {
        let found = row.get(key).map(Val::of_json);
        let Some(name) = found.as_ref().and_then(Val::as_key).map(std::borrow::Cow::into_owned) else {
            return Err(format!("row {} has no {key:?} that is a text or a whole number", at + 1));
        };
        if keyed.insert(name, row).is_some() {
            return Err(format!("row {} has a {key:?} that another row has", at + 1));
        }
    }
    bounded(keyed)
}

fn bounded(rows: HashMap<String, Row>) -> Result<HashMap<String, Row>, String> {
    match rows.len() {
        0..=ROWS_MAX => Ok(rows),
        _ => Err(format!("it has more than {ROWS_MAX} rows")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_from_csv_and_json_and_says_what_is_wrong_with_it() {
        let csv = of_csv("id, country\nann,NO\nbob,\n", "id").unwrap();
        assert_eq!(csv.rows["ann"]["country"], "NO");
        assert!(!csv.rows["bob"].contains_key("country"));
        let list = of_json(r#"[{"id":7,"age":30}]"#, "id").unwrap();
        assert_eq!(list.rows["7"]["age"], 30);
        assert_eq!(of_json(r#"{"7":{"age":30}}"#, "id").unwrap().rows["7"]["age"], 30);
        for (wrong, part) in
            [("name\nx\n", "\"id\""), ("id,a\nx\n", "record"), ("id\nx\nx\n", "row 2"), ("id,a\n,x\n", "row 1")]
        {
            let error = of_csv(wrong, "id").unwrap_err();
            assert!(error.contains(part), "{wrong:?}: {error}");
        }
        for (wrong, part) in [("[1]", "element 0"), ("7", "expected"), ("[{}]", "row 1"), ("[", "line 1")] {
            let error = of_json(wrong, "id").unwrap_err();
            assert!(error.contains(part), "{wrong:?}: {error}");
        }
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn a_file_that_changes_is_read_again_and_a_wrong_one_leaves_the_old_table() {
        let folder = std::env::temp_dir().join(format!("weir-lookup-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("users.csv");
        std::fs::write(&file, "id,country\nann,NO\n").unwrap();
        let refresh = std::time::Duration::from_millis(10);
        let config =
            config::Lookup { file: Some(file.clone()), key: "id".to_owned(), refresh, ..config::Lookup::default() };
        let lookups = Lookups::from_files(&[("users".to_owned(), config)].into()).unwrap();
        let users = lookups.get("users").unwrap();
        let country = || match users.get("ann", "country") {
            Some(Val::Text(country)) => country.into_owned(),
            _ => String::new(),
        };
        assert_eq!(country(), "NO");
        let metrics = crate::metrics::Metrics::new();
        let pool_metrics = metrics.pool("p");
        let store = store::open(&config::Store {
            url: config::Secret::new(format!("sqlite://{}/unused.db", folder.display())),
            ..config::Store::default()
        });
        let stop = CancellationToken::new();
        let watching = tokio::spawn(lookups.clone().watch("p".into(), store.unwrap(), pool_metrics, stop.clone()));
        let until = async |what: &str, is_so: &dyn Fn() -> bool| {
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
            while !is_so() {
                assert!(std::time::Instant::now() < deadline, "{what}");
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        std::fs::write(&file, "no such column\nann\n").unwrap();
        let refused = "weir_reloads_total{pool=\"p\",result=\"error\"} ";
        until("the wrong file to be met", &|| {
            metrics.render().lines().any(|line| line.strip_prefix(refused).is_some_and(|count| count != "0"))
        })
        .await;
        assert_eq!(country(), "NO");
        std::fs::write(&file, "id,country\nann,SE-and-longer\n").unwrap();
        until("the new table", &|| country() == "SE-and-longer").await;
        stop.cancel();
        watching.await.unwrap();
        std::fs::remove_dir_all(folder).unwrap();
    }
}
