//! What PostgreSQL's error codes ask for, by SQLSTATE
//! (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).

use crate::store::Fault;

/// What an operator can do about what no retry mends.
pub(super) fn advice(code: &str, message: &str) -> &'static str {
    match code {
        "08P01" if classify(code, message) == Fault::Hold => {
            ": check the user, the password and the database in store.url, and the pooler's own list of them"
        }
        "42P01" | "42703" => ": run `weir migrate`, or make the table as the pool's mapping expects it",
        "42501" => ": grant weir's role what it needs on its tables",
        "3D000" => ": create the database, or name another in store.url",
        // No statement of that name, or one already: another connection's, in a session that several share.
        "26000" | "42P05" => {
            ": a pooler in transaction mode stands before the database: set store.pooler = \"transaction\", and \
             max_prepared_statements = 0 in a PgBouncer older than 1.22.1"
        }
        _ if code.starts_with("28") => ": check the user and the password in store.url",
        _ => "",
    }
}

/// What PgBouncer says of logins that no retry mends. It gives most of what it says itself one code, that of the protocol.
const POOLER_REFUSES: [&str; 4] = ["authentication failed", "no such user", "no such database", "does not exist"];

pub(super) fn classify(code: &str, message: &str) -> Fault {
    match code {
        "08P01" if POOLER_REFUSES.iter().any(|told| message.contains(told)) => Fault::Hold,
        // A statement, a pause between two of them, or a transaction that took too long.
        "57014" | "25P03" | "25P04" => Fault::TooSlow,
        // Lock time-out, serialization failure, deadlock.
        "55P03" | "40001" | "40P01" => Fault::Busy,
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

/// PostgreSQL quotes the offending value in some data errors; a payload must not reach a log.
pub(super) fn public_message(message: &str, fault: Fault) -> &str {
    match fault {
        Fault::Reject => message.split_once(": ").map_or(message, |(head, _)| head),
        _ => message,
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
            ("25P03", Fault::TooSlow),
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
            assert_eq!(classify(code, ""), fault, "{code}");
        }
        assert_eq!(classify("08P01", "SASL authentication failed"), Fault::Hold);
        assert_eq!(classify("08P01", "server conn crashed?"), Fault::Outage);
    }
}
