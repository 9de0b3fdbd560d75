//! What MariaDB's and MySQL's error numbers ask for
//! (<https://mariadb.com/docs/server/reference/error-codes/mariadb-error-code-reference>,
//! <https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html>).

use std::borrow::Cow;

use crate::store::Fault;

/// A unique key has the value already.
pub(super) const DUPLICATE_ENTRY: u16 = 1062;

/// What an operator can do about what no retry mends.
pub(super) fn advice(number: u16) -> &'static str {
    match number {
        1054 | 1146 => ": run `weir migrate`, or make the table as the pool's mapping expects it",
        1044 | 1142 | 1143 | 1227 => ": grant weir's user what it needs on its tables",
        1045 | 1698 => ": check the user and the password in store.url",
        1049 => ": create the database, or name another in store.url",
        1461 => ": raise max_prepared_stmt_count; a worker keeps about 60 statements a connection (store.connections)",
        1665 => {
            ": weir reads what is committed, which a binary log of statements does not take: set binlog_format = ROW or MIXED"
        }
        _ => "",
    }
}

pub(super) fn classify(number: u16) -> Fault {
    match number {
        // Disk or table full, out of memory, too many connections, shutting down, an engine's I/O error, an error at
        // commit, a broken connection, not part of the cluster yet, read only, killed.
        1021
        | 1030
        | 1037
        | 1038
        | 1040
        | 1041
        | 1047
        | 1053
        | 1077
        | 1079
        | 1080
        | 1114
        | 1129
        | 1135
        | 1152
        | 1158..=1161
        | 1180
        | 1184
        | 1203
        | 1226
        | 1290
        | 1792
        | 1836
        | 1927
        | 4031 => Fault::Outage,
        // In each other's way, or the table changed meanwhile.
        1020 | 1205 | 1213 | 1317 | 1412 | 1614 | 1615 => Fault::Busy,
        1969 | 3024 => Fault::TooSlow,
        // NULL, a repeated key, no default, out of range, too long, a wrong value or character, a foreign key, a check, a
        // row or packet that is too large, a trigger's own refusal.
        1048 | DUPLICATE_ENTRY | 1118 | 1153 | 1216 | 1217 | 1264 | 1265 | 1292 | 1300 | 1301 | 1364 | 1366 | 1367
        | 1406 | 1411 | 1416 | 1441 | 1451 | 1452 | 1525 | 1586 | 1644 | 1690 | 3140 | 3141 | 3819 | 4025 | 4078 => {
            Fault::Reject
        }
        _ => Fault::Hold,
    }
}

/// The message without the value that it quotes: a payload must not reach a log.
pub(super) fn public_message(number: u16, message: &str) -> Cow<'_, str> {
    if number == DUPLICATE_ENTRY || number == 1586 {
        let key = message.rsplit_once(" for key ").map_or("a unique key", |(_, key)| key);
        return Cow::Owned(format!("a row is there already in key {key}"));
    }
    if classify(number) != Fault::Reject {
        return Cow::Borrowed(message);
    }
    // "Incorrect integer value: 'x' for column `d`.`t`.`c` at row 1"
    match message.split_once(": '") {
        None => Cow::Borrowed(message),
        Some((what, quoted)) => match quoted.rsplit_once("' for ") {
            Some((_, place)) => Cow::Owned(format!("{what} for {place}")),
            None => Cow::Borrowed(what),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_ask_for_what_their_cause_needs() {
        let cases = [
            (1040, Fault::Outage),
            (1114, Fault::Outage),
            (1290, Fault::Outage),
            (1205, Fault::Busy),
            (1213, Fault::Busy),
            (1969, Fault::TooSlow),
            (1048, Fault::Reject),
            (1062, Fault::Reject),
            (1264, Fault::Reject),
            (1366, Fault::Reject),
            (1406, Fault::Reject),
            (4025, Fault::Reject),
            (1045, Fault::Hold),
            (1049, Fault::Hold),
            (1142, Fault::Hold),
            (1146, Fault::Hold),
            (0, Fault::Hold),
        ];
        for (number, fault) in cases {
            assert_eq!(classify(number), fault, "{number}");
        }
    }

    #[test]
    fn a_refused_value_is_not_quoted() {
        let cases = [
            (1062, "Duplicate entry 'se' for key 'cret' for key 'PRIMARY'", "a row is there already in key 'PRIMARY'"),
            (
                1366,
                "Incorrect integer value: 'secret' for column `d`.`t`.`c` at row 1",
                "Incorrect integer value for column `d`.`t`.`c` at row 1",
            ),
            (1292, "Truncated incorrect DOUBLE value: 'secret'", "Truncated incorrect DOUBLE value"),
            (1406, "Data too long for column 'content' at row 1", "Data too long for column 'content' at row 1"),
            (1146, "Table 'd.messages' doesn't exist", "Table 'd.messages' doesn't exist"),
        ];
        for (number, message, shown) in cases {
            assert_eq!(public_message(number, message), shown);
        }
    }
}
