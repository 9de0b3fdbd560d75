//! What a claim answers, and when a worker may not have a partition: the same on every database.

use super::Held;

/// Who claims a partition: a pool with all of its pipelines.
#[derive(Debug, Clone, Copy)]
pub struct Claimant<'a> {
    /// The pool's name.
    pub pool: &'a str,
    /// Its pipelines' names.
    pub pipelines: &'a [&'a str],
}

/// What became of a claim.
#[derive(Debug)]
pub enum Claim {
    /// The partition is the claimant's. Pipelines that were not there before begin at the held offset.
    Taken(Held),
    /// The ledger is not as it was read.
    Moved,
    /// These pipelines have begun here, and the claimant lacks them: what it settled would be missing in them.
    Lacks(Vec<String>),
    /// The group's place belongs to a pool of this name.
    Renamed(String),
}

/// A pipeline on record at a place.
#[derive(Debug, Clone)]
pub(super) struct Begun {
    pub(super) pipeline: String,
    pub(super) pool: String,
    pub(super) is_retired: bool,
}

/// Why the claimant may not have the place, by what is on record there.
pub(super) fn refusal(begun: &[Begun], claimant: &Claimant<'_>) -> Option<Claim> {
    if let Some(other) = begun.iter().find(|begun| begun.pool != claimant.pool) {
        return Some(Claim::Renamed(other.pool.clone()));
    }
    let is_lacking = |begun: &&Begun| !begun.is_retired && !claimant.pipelines.contains(&begun.pipeline.as_str());
    let lacking: Vec<String> = begun.iter().filter(is_lacking).map(|begun| begun.pipeline.clone()).collect();
    (!lacking.is_empty()).then_some(Claim::Lacks(lacking))
}

/// The claimant's pipelines that begin here now, and at which offset. Where nothing is on record although the place
/// was claimed before, this release is the first to keep it: what runs now has run all along.
pub(super) fn beginning<'a>(
    begun: &[Begun],
    claimant: &Claimant<'a>,
    epoch: i64,
    next_offset: i64,
) -> (Vec<&'a str>, i64) {
    let is_new = |name: &&&str| !begun.iter().any(|begun| !begun.is_retired && begun.pipeline == **name);
    let names = claimant.pipelines.iter().filter(is_new).copied().collect();
    (names, if begun.is_empty() && epoch > 0 { 0 } else { next_offset })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(pipeline: &str, is_retired: bool) -> Begun {
        Begun { pipeline: pipeline.to_owned(), pool: "p".to_owned(), is_retired }
    }

    #[test]
    fn who_lacks_a_pipeline_is_refused_until_it_is_retired() {
        let old = Claimant { pool: "p", pipelines: &["persist"] };
        let record = [begun("persist", false), begun("stats", false)];
        assert!(matches!(refusal(&record, &old), Some(Claim::Lacks(lacking)) if lacking == ["stats"]));
        assert!(refusal(&[begun("persist", false), begun("stats", true)], &old).is_none());
        let renamed = Claimant { pool: "q", pipelines: &["persist", "stats"] };
        assert!(matches!(refusal(&record, &renamed), Some(Claim::Renamed(pool)) if pool == "p"));
    }

    #[test]
    fn pipelines_begin_where_they_are_first_claimed() {
        let both = Claimant { pool: "p", pipelines: &["persist", "stats"] };
        assert_eq!(beginning(&[], &both, 0, 7), (vec!["persist", "stats"], 7), "a new place");
        assert_eq!(beginning(&[], &both, 3, 7), (vec!["persist", "stats"], 0), "a place of an older release");
        assert_eq!(beginning(&[begun("persist", false)], &both, 3, 7), (vec!["stats"], 7));
        assert_eq!(beginning(&[begun("persist", false), begun("stats", true)], &both, 3, 7), (vec!["stats"], 7));
    }
}
