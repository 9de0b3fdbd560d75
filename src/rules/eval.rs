//! Evaluation, bounded in its steps.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::rc::Rc;

use super::node::{Arithmetic, Attribute, Comparison, Node, Quantifier};
use super::value::{Stop, Val, failed};
use super::{Ruling, STEPS_MAX};
use crate::event::{self, Document, Event, Payload as _};

/// Bytes of a text that are looked through in a step.
const STEP_BYTES: usize = 64;

pub(super) fn ask(node: &Node, event: &Event<Document>) -> Result<Ruling, String> {
    let mut eval = Eval { event, steps: STEPS_MAX, elements: Vec::new() };
    match eval.truth(node) {
        Ok(true) => Ok(Ruling::Yes),
        Ok(false) => Ok(Ruling::No),
        Err(Stop::Missing) => Ok(Ruling::Missing),
        Err(Stop::Failed(why)) => Err(why),
    }
}

struct Eval<'a> {
    event: &'a Event<Document>,
    /// That are left.
    steps: u32,
    /// Those that open macros are at.
    elements: Vec<Val<'a>>,
}

impl<'a> Eval<'a> {
    fn spend(&mut self, steps: usize) -> Result<(), Stop> {
        match u32::try_from(steps).ok().and_then(|steps| self.steps.checked_sub(steps)) {
            Some(left) => {
                self.steps = left;
                Ok(())
            }
            None => failed(format!("it takes more than {STEPS_MAX} steps for this event")),
        }
    }

    fn value(&mut self, node: &'a Node) -> Result<Val<'a>, Stop> {
        self.spend(1)?;
        match node {
            Node::Literal(literal) => Ok(Val::of_literal(literal)),
            Node::Attribute(attribute) => self.attribute(*attribute),
            Node::Header(name) => {
                let name = self.value(name)?;
                self.header(&name)
            }
            Node::Payload(slot) => Val::of_picked(self.event.payload.get(*slot)),
            Node::PayloadTree(slot) => {
                let picked = self.event.payload.get(*slot);
                if let event::Value::Json(json) = picked {
                    self.spend(json.len() / STEP_BYTES)?;
                }
                Val::of_picked(picked)
            }
            Node::Element(at) => Ok(self.elements[*at].clone()),
            Node::Field(of, name) => field(&self.value(of)?, name),
            Node::Index(of, index) => {
                let (of, index) = (self.value(of)?, self.value(index)?);
                element(&of, &index)
            }
            Node::Has(node) => match self.value(node) {
                Ok(_) => Ok(Val::Bool(true)),
                Err(Stop::Missing) => Ok(Val::Bool(false)),
                Err(stop) => Err(stop),
            },
            Node::Lookup { table, key, column } => {
                let key = self.value(key)?;
                let Some(key) = key.as_key() else {
                    return failed(format!("{} is no key of a lookup", key.kind()));
                };
                table.get(&key, column).ok_or(Stop::Missing)
            }
            Node::If(parts) => {
                let [condition, yes, no] = &**parts;
                if self.truth(condition)? { self.value(yes) } else { self.value(no) }
            }
            Node::Negative(node) => self.negative(node),
            Node::Compute(operator, a, b) => {
                let (a, b) = (self.value(a)?, self.value(b)?);
                self.compute(*operator, a, b)
            }
            Node::List(nodes) => {
                let values: Result<Vec<_>, _> = nodes.iter().map(|node| self.value(node)).collect();
                Ok(Val::List(Rc::new(values?)))
            }
            Node::Call(function, nodes) => {
                let values: Result<Vec<_>, _> = nodes.iter().map(|node| self.value(node)).collect();
                let values = values?;
                for value in &values {
                    if let Val::Text(text) = value {
                        self.spend(text.len() / STEP_BYTES)?;
                    }
                }
                function.call(&values)
            }
            Node::Collect { list, filter, element } => self.collect(list, filter.as_deref(), element),
            Node::Not(_)
            | Node::And(..)
            | Node::Or(..)
            | Node::Equal(..)
            | Node::Compare(..)
            | Node::In(..)
            | Node::OneOf(..)
            | Node::Matches(..)
            | Node::Quantified(..) => self.condition(node).map(Val::Bool),
        }
    }

    fn truth(&mut self, node: &'a Node) -> Result<bool, Stop> {
        match self.value(node)? {
            Val::Bool(value) => Ok(value),
            other => failed(format!("{} stands where true or false is expected", other.kind())),
        }
    }

    /// What is true or false.
    fn condition(&mut self, node: &'a Node) -> Result<bool, Stop> {
        match node {
            Node::Not(node) => Ok(!self.truth(node)?),
            Node::And(a, b) => self.both(a, b, false),
            Node::Or(a, b) => self.both(a, b, true),
            Node::Equal(a, b) => {
                let (a, b) = (self.value(a)?, self.value(b)?);
                self.spend(a.weight().min(b.weight()))?;
                Ok(a.equals(&b))
            }
            Node::Compare(comparison, a, b) => {
                let (a, b) = (self.value(a)?, self.value(b)?);
                let order = a.order(&b)?;
                Ok(order.is_some_and(|order| match comparison {
                    Comparison::Less => order == Ordering::Less,
                    Comparison::LessOrEqual => order != Ordering::Greater,
                    Comparison::Greater => order == Ordering::Greater,
                    Comparison::GreaterOrEqual => order != Ordering::Less,
                }))
            }
            Node::OneOf(value, nodes) => {
                let value = self.value(value)?;
                for node in nodes {
                    if value.equals(&self.value(node)?) {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Node::In(value, container) => {
                let (value, container) = (self.value(value)?, self.value(container)?);
                self.spend(container.weight())?;
                match (&value, &container) {
                    (value, Val::List(list)) => Ok(list.iter().any(|element| element.equals(value))),
                    (Val::Text(key), Val::Map(map)) => Ok(map.contains_key(&**key)),
                    (value, container) => failed(format!("{} cannot be in {}", value.kind(), container.kind())),
                }
            }
            Node::Matches(text, regex) => match self.value(text)? {
                Val::Text(text) => {
                    self.spend(text.len() / STEP_BYTES)?;
                    Ok(regex.is_match(&text))
                }
                other => failed(format!("matches() does not take {}", other.kind())),
            },
            Node::Quantified(quantifier, list, condition) => self.quantified(*quantifier, list, condition),
            other => self.truth(other),
        }
    }

    /// `&&` and `||`: one side that decides makes up for whatever is wrong with the other.
    fn both(&mut self, a: &'a Node, b: &'a Node, deciding: bool) -> Result<bool, Stop> {
        let a = self.truth(a);
        if a == Ok(deciding) {
            return Ok(deciding);
        }
        let b = self.truth(b);
        match (a, b) {
            (_, Ok(b)) if b == deciding => Ok(deciding),
            (Err(failed @ Stop::Failed(_)), _) | (_, Err(failed @ Stop::Failed(_))) => Err(failed),
            (Err(Stop::Missing), _) | (_, Err(Stop::Missing)) => Err(Stop::Missing),
            (Ok(_), Ok(_)) => Ok(!deciding),
        }
    }

    fn quantified(&mut self, quantifier: Quantifier, list: &'a Node, condition: &'a Node) -> Result<bool, Stop> {
        let (mut count, mut stopped) = (0u32, None);
        for element in self.elements_of(list)? {
            match (quantifier, self.with(element, |eval| eval.truth(condition))) {
                (Quantifier::Exists, Ok(true)) => return Ok(true),
                (Quantifier::All, Ok(false)) => return Ok(false),
                (Quantifier::ExistsOne, Ok(true)) => count += 1,
                (_, Ok(_)) => {}
                (Quantifier::ExistsOne, Err(stop)) => return Err(stop),
                (_, Err(stop)) => {
                    if !matches!(stopped, Some(Stop::Failed(_))) {
                        stopped = Some(stop);
                    }
                    // An evaluation that is out of steps fails at each further one.
                    if self.steps == 0 {
                        break;
                    }
                }
            }
        }
        match (stopped, quantifier) {
            (Some(stop), _) => Err(stop),
            (None, Quantifier::All) => Ok(true),
            (None, Quantifier::Exists) => Ok(false),
            (None, Quantifier::ExistsOne) => Ok(count == 1),
        }
    }

    fn collect(&mut self, list: &'a Node, filter: Option<&'a Node>, as_what: &'a Node) -> Result<Val<'a>, Stop> {
        let mut collected = Vec::new();
        for element in self.elements_of(list)? {
            let made = self.with(element, |eval| match filter {
                Some(filter) if !eval.truth(filter)? => Ok(None),
                _ => eval.value(as_what).map(Some),
            })?;
            collected.extend(made);
        }
        Ok(Val::List(Rc::new(collected)))
    }

    fn elements_of(&mut self, list: &'a Node) -> Result<Vec<Val<'a>>, Stop> {
        let elements = match self.value(list)? {
            Val::List(list) => list.to_vec(),
            Val::Map(map) => map.keys().cloned().map(Val::Text).collect(),
            other => return failed(format!("{} has no elements", other.kind())),
        };
        self.spend(elements.len())?;
        Ok(elements)
    }

    fn with<T>(&mut self, element: Val<'a>, then: impl FnOnce(&mut Self) -> Result<T, Stop>) -> Result<T, Stop> {
        self.elements.push(element);
        let done = then(self);
        self.elements.pop();
        done
    }

    fn attribute(&self, attribute: Attribute) -> Result<Val<'a>, Stop> {
        let event = self.event;
        let text = |text: Option<Cow<'a, str>>| text.map(Val::Text).ok_or(Stop::Missing);
        match attribute {
            Attribute::Id => Ok(Val::Text(Cow::Borrowed(event.id.as_str()))),
            Attribute::Type => text(Some(Cow::Borrowed(event.payload.kind())).filter(|kind| !kind.is_empty())),
            Attribute::User => text(event.payload.user()),
            Attribute::Conversation => text(event.payload.conversation()),
            Attribute::Key => text_of("the record's key", event.record.key.as_deref()),
            Attribute::Topic => Ok(Val::Text(Cow::Borrowed(&event.origin.topic))),
            Attribute::Partition => Ok(Val::Int(event.origin.partition.into())),
            Attribute::Offset => Ok(Val::Int(event.record.offset)),
            Attribute::TimestampMs => Ok(Val::Int(event.timestamp_ms())),
        }
    }

    fn header(&self, name: &Val<'_>) -> Result<Val<'a>, Stop> {
        match name {
            Val::Text(name) => text_of("a header", self.event.record.header(name)),
            other => failed(format!("{} is no name of a header", other.kind())),
        }
    }

    fn negative(&mut self, node: &'a Node) -> Result<Val<'a>, Stop> {
        match self.value(node)? {
            Val::Int(value) => value.checked_neg().map_or_else(too_large, |value| Ok(Val::Int(value))),
            Val::Double(value) => Ok(Val::Double(-value)),
            other => failed(format!("{} has no negative", other.kind())),
        }
    }

    fn compute(&mut self, operator: Arithmetic, a: Val<'a>, b: Val<'a>) -> Result<Val<'a>, Stop> {
        let whole = |a: Option<i64>| a.map_or_else(too_large, |value| Ok(Val::Int(value)));
        let natural = |a: Option<u64>| a.map_or_else(too_large, |value| Ok(Val::Uint(value)));
        match (operator, a, b) {
            (Arithmetic::Divide | Arithmetic::Remainder, Val::Int(_), Val::Int(0))
            | (Arithmetic::Divide | Arithmetic::Remainder, Val::Uint(_), Val::Uint(0)) => failed("divided by zero"),
            (Arithmetic::Add, Val::Int(a), Val::Int(b)) => whole(a.checked_add(b)),
            (Arithmetic::Subtract, Val::Int(a), Val::Int(b)) => whole(a.checked_sub(b)),
            (Arithmetic::Multiply, Val::Int(a), Val::Int(b)) => whole(a.checked_mul(b)),
            (Arithmetic::Divide, Val::Int(a), Val::Int(b)) => whole(a.checked_div(b)),
            (Arithmetic::Remainder, Val::Int(a), Val::Int(b)) => whole(a.checked_rem(b)),
            (Arithmetic::Add, Val::Uint(a), Val::Uint(b)) => natural(a.checked_add(b)),
            (Arithmetic::Subtract, Val::Uint(a), Val::Uint(b)) => natural(a.checked_sub(b)),
            (Arithmetic::Multiply, Val::Uint(a), Val::Uint(b)) => natural(a.checked_mul(b)),
            (Arithmetic::Divide, Val::Uint(a), Val::Uint(b)) => natural(a.checked_div(b)),
            (Arithmetic::Remainder, Val::Uint(a), Val::Uint(b)) => natural(a.checked_rem(b)),
            (Arithmetic::Add, Val::Double(a), Val::Double(b)) => Ok(Val::Double(a + b)),
            (Arithmetic::Subtract, Val::Double(a), Val::Double(b)) => Ok(Val::Double(a - b)),
            (Arithmetic::Multiply, Val::Double(a), Val::Double(b)) => Ok(Val::Double(a * b)),
            (Arithmetic::Divide, Val::Double(a), Val::Double(b)) => Ok(Val::Double(a / b)),
            (Arithmetic::Add, Val::Text(a), Val::Text(b)) => {
                self.spend((a.len() + b.len()) / STEP_BYTES)?;
                Ok(Val::Text(Cow::Owned(format!("{a}{b}"))))
            }
            (Arithmetic::Add, Val::List(a), Val::List(b)) => {
                self.spend(a.len() + b.len())?;
                Ok(Val::List(Rc::new(a.iter().chain(b.iter()).cloned().collect())))
            }
            (_, a, b) => failed(format!("no arithmetic takes {} and {}; int(), double() convert", a.kind(), b.kind())),
        }
    }
}

fn too_large<'a>() -> Result<Val<'a>, Stop> {
    failed("a number does not fit 64 bits")
}

fn text_of<'a>(what: &str, bytes: Option<&'a [u8]>) -> Result<Val<'a>, Stop> {
    match std::str::from_utf8(bytes.ok_or(Stop::Missing)?) {
        Ok(text) => Ok(Val::Text(Cow::Borrowed(text))),
        Err(_) => failed(format!("{what} is not UTF-8")),
    }
}

fn field<'a>(of: &Val<'a>, name: &str) -> Result<Val<'a>, Stop> {
    match of {
        Val::Map(map) => map.get(name).cloned().ok_or(Stop::Missing),
        // As with a field of the payload that is named in one go.
        _ => Err(Stop::Missing),
    }
}

fn element<'a>(of: &Val<'a>, index: &Val<'_>) -> Result<Val<'a>, Stop> {
    match (of, index) {
        (Val::List(list), Val::Int(index)) => {
            usize::try_from(*index).ok().and_then(|index| list.get(index)).cloned().ok_or(Stop::Missing)
        }
        (of, Val::Text(name)) => field(of, name),
        (of, index) => failed(format!("{} has no element by {}", of.kind(), index.kind())),
    }
}
