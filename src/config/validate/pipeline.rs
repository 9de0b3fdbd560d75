//! A pool's pipelines: their names, whose their keys are, and what their handlers say of them.

use std::collections::BTreeSet;

use toml::Table;

use super::is_name;
use crate::config::handler::{Check, HandlerKind, Kinds};
use crate::config::schema::PIPELINE;
use crate::config::{Pipeline, Pool, nearest};

/// The pool's lookup tables.
pub(super) fn check_lookups(pool_at: &str, pool: &Pool, problems: &mut Vec<String>) {
    for (name, lookup) in &pool.lookups {
        let at = format!("{pool_at}.lookups.{name}");
        if !is_name(name) {
            problems.push(format!("`{at}`: its name is {name:?}, expected 1 to 64 of a-z, 0-9, '_' and '-'"));
        }
        match (&lookup.file, &lookup.table) {
            (Some(_), Some(_)) => problems.push(format!("`{at}` has both `file` and `table`: give one")),
            (None, None) => problems.push(format!("`{at}` has neither `file` nor `table`: give one")),
            (None, Some(table)) if !is_sql_name(table) => {
                problems.push(format!("`{at}.table` is {table:?}, expected {SQL_NAME}"));
            }
            (None, Some(_)) if !is_sql_name(&lookup.key) => {
                problems.push(format!("`{at}.key` is {:?}, expected {SQL_NAME}", lookup.key));
            }
            _ => {}
        }
        super::timeout(&format!("{at}.refresh"), lookup.refresh, problems);
    }
}

pub(super) fn check_all(pool_at: &str, pool: &Pool, kinds: Kinds<'_>, problems: &mut Vec<String>) {
    let mut names = BTreeSet::new();
    for (index, pipeline) in pool.pipelines.iter().enumerate() {
        let at = format!("{pool_at}.pipelines[{index}]");
        let name = &pipeline.name;
        if !is_name(name) {
            problems.push(format!("`{at}.name`: found {name:?}, expected 1 to 64 of a-z, 0-9, '_' and '-'"));
        } else if !names.insert(name) {
            problems.push(format!("`{at}.name`: {name:?} is another pipeline's name: names of a pool differ"));
        }
        if let Some(kind) = kinds.named(&pipeline.handler) {
            check_foreign(&at, pipeline, (kind, kinds), problems);
            (kind.check)(&mut Check::new(&at, pool, index, problems));
        } else {
            let (found, known) = (&pipeline.handler, kinds.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", "));
            problems.push(format!("`{at}.handler`: there is no handler {found:?}, expected one of {known}"));
        }
    }
    check_stores(pool_at, pool, kinds, problems);
}

/// An effect outside the transaction would be there before the others, and again whenever they fail.
fn check_stores(pool_at: &str, pool: &Pool, kinds: Kinds<'_>, problems: &mut Vec<String>) {
    let of = |stored: bool| {
        let is_one = |kind: &HandlerKind| kind.is_stored == stored;
        pool.pipelines.iter().find(|pipeline| kinds.named(&pipeline.handler).is_some_and(is_one))
    };
    if let (Some(inside), Some(outside)) = (of(true), of(false)) {
        problems.push(format!(
            "`{pool_at}`: pipeline {:?} writes to the database and {:?} does not: give {:?} a pool of its own, with its own group",
            inside.name, outside.name, outside.name
        ));
    }
}

/// Keys of other handlers, and of nobody in what a program made.
fn check_foreign(at: &str, pipeline: &Pipeline, (own, kinds): (&HandlerKind, Kinds<'_>), problems: &mut Vec<String>) {
    let written = Table::try_from(pipeline).expect("a pipeline can be written as TOML, as `weir check` does");
    for key in written.keys().filter(|key| PIPELINE.iter().all(|known| known.name != *key) && !own.has(key)) {
        let owners: Vec<&str> = kinds.with_key(key).map(|kind| kind.name).collect();
        if owners.is_empty() {
            let known = own.keys.iter().map(|key| key.name);
            let advice =
                nearest(key, known).map_or("leave it out".to_owned(), |name| format!("did you mean `{name}`?"));
            problems.push(format!("unknown key `{at}.{key}`: {advice}"));
        } else {
            problems.push(format!("`{at}.{key}` belongs to the handler {}, not to {}", owners.join(" or "), own.name));
        }
    }
}

/// What a name of a table or a column is.
pub(crate) const SQL_NAME: &str = "a letter a-z or '_', then up to 62 of a-z, 0-9 and '_'";

pub(crate) fn is_sql_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= 63
        && bytes.next().is_some_and(|first| matches!(first, b'a'..=b'z' | b'_'))
        && bytes.all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_database_are_plain() {
        assert!(is_sql_name("orders_2026") && is_sql_name("_x") && is_sql_name(&"a".repeat(63)));
        for name in ["", "2x", "Orders", "a-b", "a;drop", "a\"b", "ordër", &"a".repeat(64)] {
            assert!(!is_sql_name(name), "{name}");
        }
    }
}
