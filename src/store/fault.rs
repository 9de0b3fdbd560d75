//! The one place where databases' errors are classified. What a code asks for is each database's own (`codes.rs`).

use crate::store::{Error, Fault};

/// A store error from the driver's.
pub(super) fn error(action: &'static str, error: &sqlx::Error) -> Error {
    let (fault, message) = match error {
        sqlx::Error::Database(database) => of_database(&**database),
        other => (of_driver(other), other.to_string()),
    };
    Error { fault, action, message }
}

fn of_database(error: &dyn sqlx::error::DatabaseError) -> (Fault, String) {
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    let code = error.code().unwrap_or_default();
    #[cfg(feature = "sqlite")]
    if error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
        use super::sqlite::codes;
        let code = codes::primary(&code);
        return (codes::classify(code), format!("{} (SQLite error {code}){}", error.message(), codes::advice(code)));
    }
    #[cfg(feature = "mysql")]
    if let Some(error) = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
        use super::mysql::codes;
        let number = error.number();
        let message = codes::public_message(number, error.message());
        return (codes::classify(number), format!("{message} (error {number}){}", codes::advice(number)));
    }
    #[cfg(feature = "postgres")]
    {
        use super::postgres::codes;
        let told = error.message();
        let fault = codes::classify(&code, told);
        (fault, format!("{} (SQLSTATE {code}){}", public_message(told, fault), codes::advice(&code, told)))
    }
    #[cfg(not(feature = "postgres"))]
    (Fault::Hold, error.message().to_owned())
}

/// What the driver says, and what can be done about it.
pub(crate) fn message(error: &sqlx::Error) -> String {
    self::error("", error).message
}

/// For handlers with SQL of their own: `?` classifies what the driver says.
impl From<sqlx::Error> for Error {
    fn from(driver: sqlx::Error) -> Self {
        error("run a handler's statement", &driver)
    }
}

/// PostgreSQL quotes the offending value in some data errors; a payload must not reach a log.
#[cfg(feature = "postgres")]
fn public_message(message: &str, fault: Fault) -> &str {
    match fault {
        Fault::Reject => message.split_once(": ").map_or(message, |(head, _)| head),
        _ => message,
    }
}

fn of_driver(error: &sqlx::Error) -> Fault {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
            Fault::Outage
        }
        sqlx::Error::Tls(_) | sqlx::Error::Configuration(_) | sqlx::Error::PoolClosed => Fault::Fatal,
        sqlx::Error::Encode(_) => Fault::Reject,
        // A result that does not decode or a column that is not there: the schema is not the one we know.
        _ => Fault::Hold,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_value_is_not_quoted() {
        let message = "invalid input syntax for type uuid: \"secret\"";
        assert_eq!(public_message(message, Fault::Reject), "invalid input syntax for type uuid");
    }
}
