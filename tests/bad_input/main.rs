//! Wrong input and services that are away, as a user meets them: the real binary against the real services. Every row
//! ends in one clear message and the right exit code. docs/troubleshooting.md tells users the same.
//!
//! | row | where it is tested |
//! |---|---|
//! | an unknown key, with the nearest one and its layer | `config.rs`: `an_unknown_key_is_refused…`, `a_variable_is_checked_like_a_file`; `text.rs` |
//! | a wrong type, duration, size, address | `config.rs`: `a_wrong_type_is_refused…`, `numbers_that_a_service_would_refuse…`; `text.rs` |
//! | no TOML, no file | `config.rs`: `a_file_that_is_no_toml_is_refused…` |
//! | a broker that is away or refuses the login | `kafka.rs` |
//! | a database that is away or refuses the login; a missing database or table | `services.rs` |
//! | a SQLite file that is missing, no database, read-only, locked; its folder missing | `sqlite.rs` |
//! | a SQLite disk that is full | `e2e/sqlite.rs`: `a_full_disk_is_waited_for…`; `demo.rs`: `a_full_disk_ends_it…` |
//! | a Redis that is away; a health port in use | `services.rs` |
//! | a missing topic | `kafka.rs`; `publish_command.rs`: `a_missing_topic_is_said_and_not_made` |
//! | a group that others use | `kafka.rs` |
//! | an impossible time budget; two pools on one table | `config.rs`: `an_impossible_time_budget…`, `pools_that_would_write_over_each_other…` |
//! | lines that are no JSON | `publish_command.rs`: `a_bad_line_is_named…`, `many_bad_lines_are_counted…` |
//! | a closed output, no terminal, `NO_COLOR` | `text.rs`; `config.rs`: `a_reader_that_closes_the_pipe_is_no_failure` |
//! | the command line | `text.rs`; `config.rs`: `a_pool_that_is_not_there_is_bad_usage` |
//! | secrets in files | `config.rs`: `a_secret_can_lie_in_a_file`; `text.rs` |

#[path = "../common"]
mod common {
    pub(crate) mod kafka;
    pub(crate) mod services;
}

mod forwarder;
mod kafka;
mod place;
mod services;
mod sqlite;
mod text;
