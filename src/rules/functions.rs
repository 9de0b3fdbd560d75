//! The functions that an expression can call, `matches` and `lookup` apart.

use std::borrow::Cow;

use super::value::{Stop, Val, failed};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Size,
    Contains,
    StartsWith,
    EndsWith,
    LowerAscii,
    UpperAscii,
    Int,
    Double,
    Text,
}

/// How a function is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `name(x)`.
    Free,
    /// `x.name(…)`.
    Method,
    /// Either.
    Both,
}

/// Every function: its name, how it is called, and how many values it takes, the one before the dot included.
pub(super) const ALL: [(&str, Function, Form, usize); 9] = [
    ("size", Function::Size, Form::Both, 1),
    ("contains", Function::Contains, Form::Method, 2),
    ("startsWith", Function::StartsWith, Form::Method, 2),
    ("endsWith", Function::EndsWith, Form::Method, 2),
    ("lowerAscii", Function::LowerAscii, Form::Method, 1),
    ("upperAscii", Function::UpperAscii, Form::Method, 1),
    ("int", Function::Int, Form::Free, 1),
    ("double", Function::Double, Form::Free, 1),
    ("string", Function::Text, Form::Free, 1),
];

impl Function {
    pub(super) fn name(self) -> &'static str {
        ALL.iter().find(|(_, function, ..)| *function == self).map_or("", |(name, ..)| name)
    }

    pub(super) fn call<'a>(self, values: &[Val<'a>]) -> Result<Val<'a>, Stop> {
        match (self, values) {
            (Self::Size, [Val::Text(text)]) => count(text.chars().count()),
            (Self::Size, [Val::List(list)]) => count(list.len()),
            (Self::Size, [Val::Map(map)]) => count(map.len()),
            (Self::Contains, [Val::Text(text), Val::Text(part)]) => Ok(Val::Bool(text.contains(&**part))),
            (Self::StartsWith, [Val::Text(text), Val::Text(part)]) => Ok(Val::Bool(text.starts_with(&**part))),
            (Self::EndsWith, [Val::Text(text), Val::Text(part)]) => Ok(Val::Bool(text.ends_with(&**part))),
            (Self::LowerAscii, [Val::Text(text)]) => Ok(Val::Text(Cow::Owned(text.to_ascii_lowercase()))),
            (Self::UpperAscii, [Val::Text(text)]) => Ok(Val::Text(Cow::Owned(text.to_ascii_uppercase()))),
            (Self::Int, [value]) => int(value),
            (Self::Double, [value]) => double(value),
            (Self::Text, [value]) => text(value),
            _ => {
                let kinds: Vec<&str> = values.iter().map(Val::kind).collect();
                failed(format!("{}() does not take {}", self.name(), kinds.join(" and ")))
            }
        }
    }
}

fn count<'a>(number: usize) -> Result<Val<'a>, Stop> {
    Ok(Val::Int(i64::try_from(number).unwrap_or(i64::MAX)))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "the range is looked at before")]
fn int<'a>(value: &Val<'_>) -> Result<Val<'a>, Stop> {
    let number = match value {
        Val::Int(number) => Some(*number),
        Val::Uint(number) => i64::try_from(*number).ok(),
        Val::Double(number) if (i64::MIN as f64..i64::MAX as f64).contains(number) => Some(number.trunc() as i64),
        Val::Text(text) => text.parse().ok(),
        _ => None,
    };
    number.map_or_else(|| failed(format!("{} is no whole number that fits 64 bits", value.kind())), |n| Ok(Val::Int(n)))
}

#[expect(clippy::cast_precision_loss, reason = "as CEL converts whole numbers")]
fn double<'a>(value: &Val<'_>) -> Result<Val<'a>, Stop> {
    let number = match value {
        Val::Int(number) => Some(*number as f64),
        Val::Uint(number) => Some(*number as f64),
        Val::Double(number) => Some(*number),
        Val::Text(text) => text.parse().ok(),
        _ => None,
    };
    number.map_or_else(|| failed(format!("{} is no number", value.kind())), |n| Ok(Val::Double(n)))
}

fn text<'a>(value: &Val<'a>) -> Result<Val<'a>, Stop> {
    let text = match value {
        Val::Text(text) => text.clone(),
        Val::Bool(value) => Cow::Owned(value.to_string()),
        Val::Int(value) => Cow::Owned(value.to_string()),
        Val::Uint(value) => Cow::Owned(value.to_string()),
        Val::Double(value) => Cow::Owned(value.to_string()),
        _ => return failed(format!("{} has no text", value.kind())),
    };
    Ok(Val::Text(text))
}
