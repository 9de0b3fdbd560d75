//! A compiled expression.

use std::sync::Arc;

use regex::Regex;

use super::functions::Function;
use super::lookup::Lookup;
use crate::event::Slot;

/// What an event says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attribute {
    Id,
    Type,
    User,
    Conversation,
    Key,
    Topic,
    Partition,
    Offset,
    TimestampMs,
}

impl Attribute {
    /// Their names below `event`.
    pub(super) const ALL: [(&str, Self); 9] = [
        ("id", Self::Id),
        ("type", Self::Type),
        ("user", Self::User),
        ("conversation", Self::Conversation),
        ("key", Self::Key),
        ("topic", Self::Topic),
        ("partition", Self::Partition),
        ("offset", Self::Offset),
        ("timestamp_ms", Self::TimestampMs),
    ];
}

/// A value that is written out.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Box<str>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quantifier {
    All,
    Exists,
    ExistsOne,
}

#[derive(Debug)]
pub(super) enum Node {
    Literal(Literal),
    Attribute(Attribute),
    Header(Box<Node>),
    /// A single value of the payload.
    Payload(Slot),
    /// A part of the payload with all that is below it.
    PayloadTree(Slot),
    /// The element that a macro such as `exists` is at, by its place among those that are open.
    Element(usize),
    Field(Box<Node>, Box<str>),
    Index(Box<Node>, Box<Node>),
    Has(Box<Node>),
    Lookup {
        table: Arc<Lookup>,
        key: Box<Node>,
        column: Box<str>,
    },
    Not(Box<Node>),
    Negative(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    If(Box<[Node; 3]>),
    Equal(Box<Node>, Box<Node>),
    Compare(Comparison, Box<Node>, Box<Node>),
    Compute(Arithmetic, Box<Node>, Box<Node>),
    In(Box<Node>, Box<Node>),
    /// `in` of a list that is written out: no list is made.
    OneOf(Box<Node>, Vec<Node>),
    List(Vec<Node>),
    Call(Function, Vec<Node>),
    Matches(Box<Node>, Regex),
    Quantified(Quantifier, Box<Node>, Box<Node>),
    /// `filter` and `map`: of a list, the elements for which the condition holds, each as something else.
    Collect {
        list: Box<Node>,
        filter: Option<Box<Node>>,
        element: Box<Node>,
    },
}
