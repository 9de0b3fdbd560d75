//! The handlers that configuration can name, and what of configuration depends on which there are.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use futures_util::future::BoxFuture;

use super::{Beside, DynHandler, Handler};
use crate::config::{self, Config, HandlerKind, Kinds};
use crate::event::{Document, Fields};
use crate::metrics::PoolMetrics;
use crate::rules::Lookups;
use crate::store::Store;

/// What a handler is made of: its pipeline's configuration, the pool's store, and the pool's decoder, which it can
/// ask for further fields.
pub(crate) struct Setup<'a> {
    pub(crate) pipeline: &'a config::Pipeline,
    /// The pool that it is in.
    pub(crate) pool: &'a config::Pool,
    pub(crate) pool_name: &'a Arc<str>,
    pub(crate) fields: &'a mut Fields,
    pub(crate) id_pointer: &'a str,
    pub(crate) store: &'a Arc<dyn Store>,
    pub(crate) kafka: &'a config::Kafka,
    pub(crate) lookups: &'a Lookups,
    pub(crate) metrics: &'a PoolMetrics,
    /// What shall run as long as the pool does.
    pub(crate) beside: &'a mut Vec<Beside>,
}

type Build = for<'a> fn(Setup<'a>) -> BoxFuture<'a, anyhow::Result<Box<dyn DynHandler<Document>>>>;

/// A handler that configuration can name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shipped {
    pub(super) kind: HandlerKind,
    /// Makes it.
    pub(crate) build: Build,
}

/// Every one of them, in the order in which they are told.
const SHIPPED: &[Shipped] = &[
    // In the database.
    super::persist::SHIPPED,
    super::analyze::SHIPPED,
    super::moderate::SHIPPED,
    // Elsewhere.
    super::forward::SHIPPED,
    super::notify::SHIPPED,
];

/// Those of the program that embeds weir.
static OWN: Mutex<Vec<Shipped>> = Mutex::new(Vec::new());

/// All that configuration can name, settled when it is first looked at.
static ALL: LazyLock<Vec<Shipped>> = LazyLock::new(|| {
    let own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    SHIPPED.iter().chain(own.iter()).copied().collect()
});

static KINDS: LazyLock<Vec<HandlerKind>> = LazyLock::new(|| ALL.iter().map(|shipped| shipped.kind).collect());

/// Lets configuration name a handler of the program's own, as it names those that ship: its pipelines have no keys of
/// their own, and its effect is in the database. Call it before configuration is loaded; [`crate::cli::main`] then is
/// weir's whole command line with this handler. A name that ships stays what it is.
pub fn register<H: Handler<Document> + Default>(name: &'static str) {
    let kind = HandlerKind { name, keys: &[], is_stored: true, example: "", check: |_| {} };
    let build: Build = |_| Box::pin(async { Ok(Box::new(H::default()) as _) });
    OWN.lock().unwrap_or_else(PoisonError::into_inner).push(Shipped { kind, build });
}

/// The handler of this name.
pub(crate) fn shipped(name: &str) -> Option<&'static Shipped> {
    ALL.iter().find(|shipped| shipped.kind.name == name)
}

impl Kinds<'static> {
    pub(crate) fn shipped() -> Self {
        Self::new(&KINDS)
    }
}

impl Config {
    /// Loads and checks configuration: defaults, then files, then variables, then `key=value` settings.
    ///
    /// # Errors
    /// A file cannot be read, something is no TOML, or the whole cannot be used.
    pub fn load(files: &[PathBuf], sets: &[String]) -> Result<Self, config::Error> {
        Self::load_for(Kinds::shipped(), files, sets)
    }

    /// What is wrong with a pool that a program made or changed by itself: a line each, nothing where all is well.
    pub fn pool_problems(&self, name: &str, pool: &config::Pool) -> Vec<String> {
        self.problems_of_pool(Kinds::shipped(), name, pool)
    }
}

impl config::Pool {
    /// Whether its effects are in the database. Pools whose handlers all have theirs elsewhere have no store.
    #[must_use]
    pub fn needs_store(&self) -> bool {
        Kinds::shipped().needs_store(self)
    }
}

impl config::Pipeline {
    /// Whether its effect is in the database; that of a handler that does not ship is taken to be.
    #[must_use]
    pub fn needs_store(&self) -> bool {
        Kinds::shipped().is_stored(self)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::config::schema::{Key, Shape, key, required};
    use crate::config::{Check, Secret, duration};

    const KEYS: &[Key] = &[
        required("pager", Shape::Text),
        key("token", Shape::Secret),
        key("token_file", Shape::Text),
        key("timeout", Shape::Duration),
        key("login", Shape::Table(&[key("user", Shape::Text), key("password", Shape::Secret)])),
    ];

    /// A handler as anybody could add one.
    const PAGE: HandlerKind =
        HandlerKind { name: "page", keys: KEYS, is_stored: false, example: "pager = \"p\"", check: check_page };

    #[derive(Debug, Deserialize)]
    struct Settings {
        pager: String,
        token: Option<Secret>,
        #[serde(with = "duration")]
        timeout: std::time::Duration,
    }

    fn check_page(check: &mut Check<'_>) {
        let Some(Settings { pager, .. }) = check.read() else { return };
        if pager.contains(' ') {
            check.say("pager", format!("is {pager:?}, which has a space"));
        }
    }

    /// Loads a pool that has one pipeline, of that handler or of one that ships.
    fn load(pipeline: &str, files: &[(&str, &str)]) -> Result<Config, String> {
        let kinds: Vec<HandlerKind> = KINDS.iter().copied().chain([PAGE]).collect();
        let folder = std::env::temp_dir().join(format!("weir-registry-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&folder).unwrap();
        for (name, content) in files {
            std::fs::write(folder.join(name), content).unwrap();
        }
        let pool = "[pools.p]\ntopics = [\"t\"]\nstart = \"beginning\"\n[[pools.p.pipelines]]\nname = \"x\"\n";
        let text = format!("{pool}{}", pipeline.replace("FOLDER", folder.to_str().unwrap()));
        let file = folder.join("weir.toml");
        std::fs::write(&file, text).unwrap();
        let loaded = Config::load_with(Kinds::new(&kinds), &[file], std::iter::empty(), &[]);
        std::fs::remove_dir_all(&folder).unwrap();
        loaded.map_err(|error| error.to_string())
    }

    #[track_caller]
    fn refused(pipeline: &str, part: &str) {
        let told = load(pipeline, &[]).unwrap_err();
        assert!(told.contains(part), "{told}");
    }

    #[test]
    fn an_added_handler_has_its_own_keys_and_needs_no_database() {
        let own = "handler = \"page\"\npager = \"p\"\ntoken_file = \"FOLDER/token\"\ntimeout = \"3s\"\n";
        let config = load(own, &[("token", "hunter2\n")]).unwrap();
        let settings: Settings = config.pools["p"].pipelines[0].settings.read().unwrap();
        assert_eq!((settings.pager.as_str(), settings.timeout.as_secs()), ("p", 3));
        assert_eq!(settings.token.unwrap().expose(), "hunter2");
        assert!(config.store.is_none());
    }

    #[test]
    fn an_added_handlers_secrets_are_not_shown() {
        let own = "handler = \"page\"\npager = \"plain\"\ntimeout = \"3s\"\ntoken = \"hunter2\"\n\
                   login = { user = \"ann\", password = \"hunter3\" }\n";
        let config = load(own, &[]).unwrap();
        let printed = [toml::to_string(&config).unwrap(), serde_json::to_string(&config).unwrap()];
        for text in printed.into_iter().chain([format!("{config:?}"), format!("{:?}", config.pools)]) {
            assert!(text.contains("plain") && text.contains("ann") && text.contains("***"), "{text}");
            assert!(!text.contains("hunter"), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_an_added_handlers_keys_is_told_with_their_place() {
        let at = "pools.p.pipelines[0]";
        refused("handler = \"page\"\npagr = \"p\"\n", &format!("unknown key `{at}.pagr`"));
        refused("handler = \"page\"\npagr = \"p\"\n", "did you mean `pager`?");
        refused("handler = \"page\"\n", &format!("`{at}.pager` is not set: give text"));
        refused("handler = \"page\"\npager = 5\n", &format!("`{at}.pager`"));
        refused("handler = \"page\"\npager = \"a b\"\ntimeout = \"3s\"\n", &format!("`{at}.pager` is \"a b\", which"));
        let both = "handler = \"page\"\npager = \"p\"\ntimeout = \"3s\"\ntoken = \"x\"\ntoken_file = \"y\"\n";
        refused(both, &format!("`{at}.token` and `{at}.token_file` are both set"));
        let foreign = "handler = \"forward\"\ntopic = \"t\"\npager = \"p\"\n";
        refused(foreign, &format!("`{at}.pager` belongs to the handler page, not to forward"));
        refused("handler = \"pag\"\n", &format!("`{at}.handler`: there is no handler \"pag\", expected one of "));
    }

    #[test]
    fn what_a_program_writes_into_settings_is_checked_too() {
        let (config, handler) = (Config::default(), "notify".to_owned());
        let problems = |settings: &str| {
            let settings = settings.parse().unwrap();
            let pipeline =
                config::Pipeline { name: "x".to_owned(), handler: handler.clone(), settings, ..Default::default() };
            let (topics, pipelines) = (vec!["t".to_owned()], vec![pipeline]);
            config.pool_problems("p", &config::Pool { topics, pipelines, ..Default::default() })
        };
        assert_eq!(problems("url = \"https://host/\""), Vec::<String>::new());
        assert_eq!(
            problems("url = \"https://host/\"\nscret = \"hunter2\"\nrecord_key = \"k\""),
            [
                "`pools.p.pipelines[0].record_key` belongs to the handler forward, not to notify",
                "unknown key `pools.p.pipelines[0].scret`: did you mean `secret`?",
            ]
        );
    }

    #[test]
    fn a_key_of_two_handlers_is_of_one_shape_and_none_is_everybodys() {
        let shipped: Vec<&Key> = KINDS.iter().flat_map(|kind| kind.keys).collect();
        for key in &shipped {
            assert!(shipped.iter().all(|other| other.name != key.name || other == key), "{key:?}");
            assert!(!["name", "handler", "when"].contains(&key.name), "{key:?}");
        }
    }
}
