//! The one place where PostgreSQL's errors are classified, by SQLSTATE
//! (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).

use crate::store::{Error, Fault};

/// A store error from the driver's.
pub(super) fn error(action: &'static str, error: &sqlx::Error) -> Error {
    Error { fault: classify(error), action, message: message(error) }
}

/// What the driver says, and what can be done about it.
pub(crate) fn message(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            let said = public_message(database.message(), classify_code(&code));
            format!("{said} (SQLSTATE {code}){}", advice(&code))
        }
        other => other.to_string(),
    }
}

/// What an operator can do about what no retry mends.
fn advice(code: &str) -> &'static str {
    match code {
        "42P01" | "42703" => ": run `weir migrate`, or make the table as the pool's mapping expects it",
        "42501" => ": grant weir's role what it needs on its tables",
        "3D000" => ": create the database, or name another in store.url",
        _ if code.starts_with("28") => ": check the user and the password in store.url",
        _ => "",
    }
}

/// For handlers with SQL of their own: `?` classifies what the driver says.
impl From<sqlx::Error> for Error {
    fn from(driver: sqlx::Error) -> Self {
        error("run a handler's statement", &driver)
    }
}

/// PostgreSQL quotes the offending value in some data errors; a payload must not reach a log.
fn public_message(message: &str, fault: Fault) -> &str {
    match fault {
        Fault::Reject => message.split_once(": ").map_or(message, |(head, _)| head),
        _ => message,
    }
}

fn classify(error: &sqlx::Error) -> Fault {
    match error {
        sqlx::Error::Database(database) => classify_code(&database.code().unwrap_or_default()),
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
            Fault::Outage
        }
        sqlx::Error::Tls(_) | sqlx::Error::Configuration(_) | sqlx::Error::PoolClosed => Fault::Fatal,
        sqlx::Error::Encode(_) => Fault::Reject,
        // A result that does not decode or a column that is not there: the schema is not the one we know.
        _ => Fault::Hold,
    }
}

fn classify_code(code: &str) -> Fault {
    match code {
        "57014" => Fault::TooSlow,
        // Lock time-out, serialization failure, deadlock, and time-outs that ended the session.
        "55P03" | "40001" | "40P01" | "25P03" | "25P04" => Fault::Busy,
        // A standby that is not promoted yet, or a primary just demoted.
        "25006" => Fault::Outage,
        // Program limits: a row, a key or a nesting too large.
        _ if code.starts_with("54") => Fault::Reject,
        _ => match &code[..code.len().min(2)] {
            // Connection, insufficient resources (disk full, too many connections), operator intervention,
            // system error, internal error.
            "08" | "53" | "57" | "58" | "XX" => Fault::Outage,
            "40" => Fault::Busy,
            // Rows that get into each other's way in one statement, data exceptions, broken constraints.
            "21" | "22" | "23" => Fault::Reject,
            // No such table or column, no permission, no such database, wrong password.
            _ => Fault::Hold,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_ask_for_what_their_cause_needs() {
        let cases = [
            ("08006", Fault::Outage),
            ("57P01", Fault::Outage),
            ("53100", Fault::Outage),
            ("25006", Fault::Outage),
            ("40P01", Fault::Busy),
            ("55P03", Fault::Busy),
            ("57014", Fault::TooSlow),
            ("22021", Fault::Reject),
            ("22003", Fault::Reject),
            ("23514", Fault::Reject),
            ("54000", Fault::Reject),
            ("42P01", Fault::Hold),
            ("42501", Fault::Hold),
            ("28P01", Fault::Hold),
            ("", Fault::Hold),
        ];
        for (code, fault) in cases {
            assert_eq!(classify_code(code), fault, "{code}");
        }
    }

    #[test]
    fn a_refused_value_is_not_quoted() {
        let message = "invalid input syntax for type uuid: \"secret\"";
        assert_eq!(public_message(message, Fault::Reject), "invalid input syntax for type uuid");
    }
}
