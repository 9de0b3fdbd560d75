//! The one place where databases' errors are classified. What a code asks for is each database's own (`codes.rs`).

use sqlx::error::DatabaseError;

use super::{DRIVERS, Error, Fault};

/// A store error from the driver's.
pub(super) fn error(action: &'static str, error: &sqlx::Error) -> Error {
    let (fault, message) = match error {
        sqlx::Error::Database(database) => of_database(&**database),
        other => (of_driver(other), other.to_string()),
    };
    Error { fault, action, message }
}

fn of_database(error: &(dyn DatabaseError + 'static)) -> (Fault, String) {
    let of_one = DRIVERS.iter().find_map(|driver| driver.fault(error));
    of_one.unwrap_or_else(|| (Fault::Hold, error.message().to_owned()))
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
