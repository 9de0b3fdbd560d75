//! What JSON may say and PostgreSQL's `jsonb` cannot hold. Refused for every database, so that an event's fate does not
//! hang on which one it is.

const NUL: &str = "the JSON contains an escaped NUL, which the database refuses";
const HALF_A_PAIR: &str = "the JSON contains half of a surrogate pair, which the database refuses";
const DIGITS: &str = "the JSON contains a number of more digits than the database holds";
/// PostgreSQL's `numeric`, as which `jsonb` keeps numbers.
const DIGITS_BEFORE_POINT_MAX: i64 = 131_072;
const DIGITS_AFTER_POINT_MAX: i64 = 16_383;

/// Whether a database holds the text, which is valid JSON.
pub(super) fn check(json: &str) -> Result<(), &'static str> {
    let bytes = json.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at = match byte {
            b'"' => string(bytes, at + 1)?,
            b'-' | b'0'..=b'9' => number(bytes, at)?,
            _ => at + 1,
        };
    }
    Ok(())
}

/// Goes through a string, to what comes behind it.
fn string(bytes: &[u8], mut at: usize) -> Result<usize, &'static str> {
    loop {
        at = match bytes.get(at..).unwrap_or_default() {
            [] => return Ok(at),
            [b'"', ..] => return Ok(at + 1),
            [b'\\', b'u', ..] => match (unit(bytes, at), unit(bytes, at + 6)) {
                (Some(0), _) => return Err(NUL),
                (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => at + 12,
                (Some(0xD800..=0xDFFF), _) => return Err(HALF_A_PAIR),
                _ => at + 6,
            },
            [b'\\', ..] => at + 2,
            _ => at + 1,
        };
    }
}

/// The number of an escape `\uXXXX`, if there is one.
fn unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Goes through a number, to what comes behind it.
fn number(bytes: &[u8], at: usize) -> Result<usize, &'static str> {
    let rest = &bytes[at..];
    let length = rest.iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')).count();
    let text = std::str::from_utf8(&rest[..length]).map_err(|_| DIGITS)?;
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent: i64 = exponent.parse().map_err(|_| DIGITS)?;
    let (whole, fraction) =
        mantissa.trim_start_matches('-').split_once('.').unwrap_or((mantissa.trim_start_matches('-'), ""));
    let digits = |part: &str| i64::try_from(part.len()).unwrap_or(i64::MAX);
    let before = digits(whole).saturating_add(exponent);
    let after = digits(fraction).saturating_sub(exponent);
    match before > DIGITS_BEFORE_POINT_MAX || after > DIGITS_AFTER_POINT_MAX {
        true => Err(DIGITS),
        false => Ok(at + length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_jsonb_cannot_hold_is_told_from_what_only_looks_like_it() {
        let refused = [
            (r#""\u0000""#, NUL),
            (r#"{"a\u0000":1}"#, NUL),
            (r#"["\\\u0000"]"#, NUL),
            (r#""\ud800""#, HALF_A_PAIR),
            (r#""\ud800\u0041""#, HALF_A_PAIR),
            (r#""\udc00\ud800""#, HALF_A_PAIR),
            ("1e-20000", DIGITS),
            ("[-1.5E+131072]", DIGITS),
            ("1e99999999999999999999", DIGITS),
        ];
        for (json, why) in refused {
            assert_eq!(check(json), Err(why), "{json}");
        }
        let held = [
            r#""\\u0000""#,
            r#"{"\\":"\"","a":["\ud83d\uDE00","1e-20000"]}"#,
            "1e131071",
            "-0.5e-16000",
            "[1,2.5,-3]",
            "null",
        ];
        for json in held {
            assert_eq!(check(json), Ok(()), "{json}");
        }
    }
}
