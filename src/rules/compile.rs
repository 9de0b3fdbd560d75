//! From the parser's tree to a rule's own: every name is resolved, and nothing is left to fail that can be known before.

use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue, SelectExpr, operators};
use cel::parser::Parser;

use super::RuleError;
use super::functions::{self, Form};
use super::lookup::Lookups;
use super::node::{Arithmetic, Attribute, Comparison, Literal, Node, Quantifier};
use super::source::place_of;
use crate::event::Fields;

/// How deep a tree may be: its evaluation goes down a level with it.
const DEPTH_MAX: usize = 64;
/// The most that a compiled regular expression may take, in bytes.
const REGEX_BYTES_MAX: usize = 1 << 20;
/// What every name begins with.
const EVENT: &str = "event";

type Compiled = Result<Node, RuleError>;

pub(super) fn compile(expression: &str, fields: &mut Fields, lookups: &Lookups) -> Compiled {
    let tree = Parser::new().parse(expression).map_err(|errors| parse_error(expression, &errors))?;
    let mut compiler = Compiler { expression, fields, lookups, elements: Vec::new(), depth: 0 };
    let node = compiler.node(&tree, Want::Single)?;
    match &node {
        Node::Literal(Literal::Bool(_)) => Ok(node),
        Node::Literal(_) | Node::List(_) | Node::Compute(..) | Node::Negative(_) | Node::Collect { .. } => {
            Err(compiler.error("", "it gives no true or false: compare it with something"))
        }
        _ => Ok(node),
    }
}

fn parse_error(expression: &str, errors: &cel::ParseErrors) -> RuleError {
    let Some(first) = errors.errors.first() else { return RuleError::at(expression, 0, "it is no CEL") };
    let from_1 = |number: isize| usize::try_from(number).unwrap_or(1).max(1);
    // The parser's words can have several lines.
    let problem = first.msg.lines().next().unwrap_or_default().trim();
    RuleError { line: from_1(first.pos.0), column: from_1(first.pos.1), problem: format!("it is no CEL: {problem}") }
}

/// What is asked of a part of the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    /// A single value.
    Single,
    /// All that is below it, too.
    Tree,
}

struct Compiler<'a> {
    expression: &'a str,
    fields: &'a mut Fields,
    lookups: &'a Lookups,
    /// The names of the elements of open macros.
    elements: Vec<String>,
    depth: usize,
}

impl Compiler<'_> {
    fn error(&self, near: &str, problem: impl Into<String>) -> RuleError {
        let byte = if near.is_empty() { 0 } else { place_of(self.expression, near) };
        RuleError::at(self.expression, byte, problem)
    }

    fn node(&mut self, expr: &IdedExpr, want: Want) -> Compiled {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error("", format!("nested more than {DEPTH_MAX} levels deep")));
        }
        let node = self.shallow(expr, want);
        self.depth -= 1;
        node
    }

    fn boxed(&mut self, expr: &IdedExpr, want: Want) -> Result<Box<Node>, RuleError> {
        self.node(expr, want).map(Box::new)
    }

    fn shallow(&mut self, expr: &IdedExpr, want: Want) -> Compiled {
        if let Some(path) = self.path_of(expr) {
            return self.attribute(&path, want);
        }
        match &expr.expr {
            Expr::Literal(literal) => self.literal(literal),
            Expr::Ident(name) => match self.elements.iter().rposition(|known| known == name) {
                Some(at) => Ok(Node::Element(at)),
                None if name == EVENT => {
                    Err(self.error(name, "`event` has to be followed by a field, such as event.type"))
                }
                None => Err(self.error(name, format!("there is no {name:?}: everything is below `event`"))),
            },
            Expr::Select(select) => self.select(select, want),
            Expr::Call(call) => self.call(call, want),
            Expr::List(list) => {
                let nodes: Result<Vec<_>, _> = list.elements.iter().map(|expr| self.node(expr, want)).collect();
                Ok(Node::List(nodes?))
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Map(_) | Expr::Struct(_) => Err(self.error("", "a condition cannot make a map or a struct")),
            Expr::Unspecified => Err(self.error("", "it is no CEL")),
        }
    }

    fn literal(&self, literal: &LiteralValue) -> Compiled {
        Ok(Node::Literal(match literal {
            LiteralValue::Null => Literal::Null,
            LiteralValue::Boolean(value) => Literal::Bool(*value.inner()),
            LiteralValue::Int(value) => Literal::Int(*value.inner()),
            LiteralValue::UInt(value) => Literal::Uint(*value.inner()),
            LiteralValue::Double(value) => Literal::Double(*value.inner()),
            LiteralValue::String(text) => Literal::Text(text.inner().into()),
            LiteralValue::Bytes(_) => return Err(self.error("", "bytes are not known here: compare texts")),
        }))
    }

    /// The steps below `event`, where they are all written out.
    fn path_of(&self, expr: &IdedExpr) -> Option<Vec<String>> {
        match &expr.expr {
            Expr::Ident(name) if name == EVENT && !self.elements.contains(name) => Some(Vec::new()),
            Expr::Select(select) if !select.test => {
                let mut path = self.path_of(&select.operand)?;
                path.push(select.field.clone());
                Some(path)
            }
            Expr::Call(call) if call.func_name == operators::INDEX && call.args.len() == 2 => {
                let mut path = self.path_of(&call.args[0])?;
                path.push(match &call.args[1].expr {
                    Expr::Literal(LiteralValue::String(name)) => name.inner().to_owned(),
                    Expr::Literal(LiteralValue::Int(index)) if *index.inner() >= 0 => index.inner().to_string(),
                    _ => return None,
                });
                Some(path)
            }
            _ => None,
        }
    }

    fn attribute(&mut self, path: &[String], want: Want) -> Compiled {
        let steps: Vec<&str> = path.iter().map(String::as_str).collect();
        match steps[..] {
            [] => Err(self.error(EVENT, "`event` has to be followed by a field, such as event.type")),
            ["payload"] => {
                Err(self.error("event.payload", "name a field of it, such as event.payload.message.content"))
            }
            ["headers"] => Err(self.error("event.headers", "name a header, such as event.headers['source']")),
            ["headers", name] => Ok(Node::Header(Box::new(Node::Literal(Literal::Text(name.into()))))),
            ["payload", ..] => {
                let escaped = steps[1..].iter().map(|step| format!("/{}", step.replace('~', "~0").replace('/', "~1")));
                let pointer: String = escaped.collect();
                let picked = match want {
                    Want::Single => self.fields.value(&pointer).map(Node::Payload),
                    Want::Tree => self.fields.json(&pointer).map(Node::PayloadTree),
                };
                picked.map_err(|error| self.error("event.payload", error.to_string()))
            }
            [name, ..] => {
                let near = format!("{EVENT}.{name}");
                let known = Attribute::ALL.iter().find(|(known, _)| *known == name);
                match (known, steps.len()) {
                    (Some((_, attribute)), 1) => Ok(Node::Attribute(*attribute)),
                    (Some(_), _) => Err(self.error(&near, format!("{near} is a single value, without fields"))),
                    (None, _) => {
                        let names: Vec<String> =
                            Attribute::ALL.iter().map(|(name, _)| format!("{EVENT}.{name}")).collect();
                        let known = names.join(", ");
                        Err(self.error(
                            &near,
                            format!("there is no {near}: known are {known}, event.headers and event.payload"),
                        ))
                    }
                }
            }
        }
    }

    fn select(&mut self, select: &SelectExpr, want: Want) -> Compiled {
        if select.test {
            let plain = SelectExpr { test: false, ..select.clone() };
            let plain = IdedExpr { id: 0, expr: Expr::Select(plain) };
            return Ok(Node::Has(self.boxed(&plain, want)?));
        }
        match lookup_call(&select.operand) {
            Some(call) => self.lookup(call, &select.field),
            None => Ok(Node::Field(self.boxed(&select.operand, Want::Tree)?, select.field.as_str().into())),
        }
    }

    fn lookup(&mut self, call: &CallExpr, column: &str) -> Compiled {
        let name = match &call.args[..] {
            [name, _] => match &name.expr {
                Expr::Literal(LiteralValue::String(name)) => name.inner().to_owned(),
                _ => return Err(self.error("lookup", "the lookup's name has to be written out")),
            },
            _ => return Err(self.error("lookup", "expected lookup('name', key).column")),
        };
        let Some(table) = self.lookups.get(&name) else {
            let known: Vec<&str> = self.lookups.names().collect();
            let known = if known.is_empty() {
                "none is configured".to_owned()
            } else {
                format!("known are {}", known.join(", "))
            };
            return Err(self.error("lookup", format!("there is no lookup {name:?}: {known} (`lookups` of the pool)")));
        };
        if let Some(columns) = table.unknown_column(column) {
            return Err(self.error("lookup", format!("lookup {name:?} has no column {column:?}: it has {columns}")));
        }
        Ok(Node::Lookup { table, key: self.boxed(&call.args[1], Want::Single)?, column: column.into() })
    }

    fn call(&mut self, call: &CallExpr, want: Want) -> Compiled {
        let args = &call.args;
        match (call.func_name.as_str(), &args[..]) {
            (operators::LOGICAL_NOT, [a]) => Ok(Node::Not(self.boxed(a, Want::Single)?)),
            (operators::NEGATE, [a]) => Ok(Node::Negative(self.boxed(a, Want::Single)?)),
            (operators::LOGICAL_AND, [a, b]) => {
                Ok(Node::And(self.boxed(a, Want::Single)?, self.boxed(b, Want::Single)?))
            }
            (operators::LOGICAL_OR, [a, b]) => Ok(Node::Or(self.boxed(a, Want::Single)?, self.boxed(b, Want::Single)?)),
            (operators::CONDITIONAL, [condition, yes, no]) => {
                let condition = self.node(condition, Want::Single)?;
                Ok(Node::If(Box::new([condition, self.node(yes, want)?, self.node(no, want)?])))
            }
            (operators::EQUALS, [a, b]) => self.equal(a, b),
            (operators::NOT_EQUALS, [a, b]) => Ok(Node::Not(Box::new(self.equal(a, b)?))),
            (operators::IN, [value, container]) => {
                let value = self.boxed(value, Want::Single)?;
                Ok(match self.node(container, Want::Tree)? {
                    Node::List(nodes) => Node::OneOf(value, nodes),
                    container => Node::In(value, Box::new(container)),
                })
            }
            (operators::INDEX, [of, index]) => match (lookup_call(of), &index.expr) {
                (Some(call), Expr::Literal(LiteralValue::String(column))) => self.lookup(call, column.inner()),
                _ if self.path_of(of).is_some_and(|path| path == ["headers"]) => {
                    Ok(Node::Header(self.boxed(index, Want::Single)?))
                }
                _ => Ok(Node::Index(self.boxed(of, Want::Tree)?, self.boxed(index, Want::Single)?)),
            },
            (operator, [a, b]) if comparison(operator).is_some() || arithmetic(operator).is_some() => {
                let (a, b) = (self.boxed(a, want)?, self.boxed(b, want)?);
                Ok(match (comparison(operator), arithmetic(operator)) {
                    (Some(comparison), _) => Node::Compare(comparison, a, b),
                    (None, Some(arithmetic)) => Node::Compute(arithmetic, a, b),
                    (None, None) => return Err(self.error("", format!("there is no operator {operator:?}"))),
                })
            }
            ("lookup", _) if call.target.is_none() => {
                Err(self
                    .error("lookup", "it gives a row: take a column of it, as in lookup('users', event.user).country"))
            }
            _ => self.function(call),
        }
    }

    fn equal(&mut self, a: &IdedExpr, b: &IdedExpr) -> Compiled {
        let makes_list = |expr: &IdedExpr| matches!(expr.expr, Expr::List(_) | Expr::Comprehension(_));
        let want = if makes_list(a) || makes_list(b) { Want::Tree } else { Want::Single };
        Ok(Node::Equal(self.boxed(a, want)?, self.boxed(b, want)?))
    }

    fn function(&mut self, call: &CallExpr) -> Compiled {
        let name = call.func_name.as_str();
        let values: Vec<&IdedExpr> = call.target.as_deref().into_iter().chain(&call.args).collect();
        if name == "matches" {
            return self.matches(&values);
        }
        let Some((_, function, form, count)) = functions::ALL.iter().find(|(known, ..)| *known == name) else {
            return Err(self.error(name, unknown_function(name)));
        };
        let is_method = call.target.is_some();
        if (*form == Form::Method && !is_method) || (*form == Form::Free && is_method) || values.len() != *count {
            let form = if *form == Form::Method { format!("x.{name}(…)") } else { format!("{name}(x)") };
            return Err(self.error(name, format!("{name} is called as {form}, with {count} values in all")));
        }
        let want = if *function == functions::Function::Size { Want::Tree } else { Want::Single };
        let nodes: Result<Vec<_>, _> = values.into_iter().map(|expr| self.node(expr, want)).collect();
        Ok(Node::Call(*function, nodes?))
    }

    /// The pattern is compiled once, and no sender can bring one.
    fn matches(&mut self, values: &[&IdedExpr]) -> Compiled {
        let [text, pattern] = values else {
            return Err(self.error("matches", "expected text.matches('a regular expression')"));
        };
        let Expr::Literal(LiteralValue::String(pattern)) = &pattern.expr else {
            return Err(self.error("matches", "its regular expression has to be written out"));
        };
        let regex = regex::RegexBuilder::new(pattern.inner()).size_limit(REGEX_BYTES_MAX).build();
        let regex = regex.map_err(|error| {
            let why = error.to_string();
            let why = why.lines().last().unwrap_or_default();
            self.error("matches", format!("its regular expression cannot be used: {why}"))
        })?;
        Ok(Node::Matches(self.boxed(text, Want::Single)?, regex))
    }

    /// The macros arrive as loops; each has its own shape.
    fn comprehension(&mut self, of: &ComprehensionExpr) -> Compiled {
        let unknown = |compiler: &Self| Err(compiler.error("", "expected all, exists, exists_one, filter or map"));
        let list = self.boxed(&of.iter_range, Want::Tree)?;
        let Expr::Call(step) = &of.loop_step.expr else { return unknown(self) };
        self.elements.push(of.iter_var.clone());
        let node = match (&of.accu_init.expr, step.func_name.as_str(), &step.args[..]) {
            (Expr::Literal(LiteralValue::Boolean(_)), operators::LOGICAL_AND, [_, condition]) => {
                self.boxed(condition, Want::Single).map(|node| Node::Quantified(Quantifier::All, list, node))
            }
            (Expr::Literal(LiteralValue::Boolean(_)), operators::LOGICAL_OR, [_, condition]) => {
                self.boxed(condition, Want::Single).map(|node| Node::Quantified(Quantifier::Exists, list, node))
            }
            (Expr::Literal(LiteralValue::Int(_)), operators::CONDITIONAL, [condition, ..]) => {
                self.boxed(condition, Want::Single).map(|node| Node::Quantified(Quantifier::ExistsOne, list, node))
            }
            (Expr::List(_), operators::CONDITIONAL, [filter, step, _]) => match &step.expr {
                Expr::Call(step) => self.collect(list, Some(filter), step),
                _ => unknown(self),
            },
            (Expr::List(_), operators::ADD, _) => self.collect(list, None, step),
            _ => unknown(self),
        };
        self.elements.pop();
        node
    }

    /// The step of `filter` and `map` is the list so far and one more element.
    fn collect(&mut self, list: Box<Node>, filter: Option<&IdedExpr>, step: &CallExpr) -> Compiled {
        let element = match &step.args[..] {
            [_, last] => match &last.expr {
                Expr::List(last) => last.elements.first(),
                _ => None,
            },
            _ => None,
        };
        let Some(element) = element else { return Err(self.error("", "expected filter or map")) };
        let filter = filter.map(|filter| self.boxed(filter, Want::Single)).transpose()?;
        Ok(Node::Collect { list, filter, element: self.boxed(element, Want::Tree)? })
    }
}

fn lookup_call(expr: &IdedExpr) -> Option<&CallExpr> {
    match &expr.expr {
        Expr::Call(call) if call.func_name == "lookup" && call.target.is_none() => Some(call),
        _ => None,
    }
}

fn unknown_function(name: &str) -> String {
    let names = functions::ALL.iter().map(|(known, ..)| *known).chain(["matches", "lookup", "has"]);
    let near = names.clone().find(|known| known.eq_ignore_ascii_case(name));
    match near {
        Some(near) => format!("there is no function {name:?}: did you mean {near}?"),
        None => format!("there is no function {name:?}: known are {}", names.collect::<Vec<_>>().join(", ")),
    }
}

fn comparison(operator: &str) -> Option<Comparison> {
    match operator {
        operators::LESS => Some(Comparison::Less),
        operators::LESS_EQUALS => Some(Comparison::LessOrEqual),
        operators::GREATER => Some(Comparison::Greater),
        operators::GREATER_EQUALS => Some(Comparison::GreaterOrEqual),
        _ => None,
    }
}

fn arithmetic(operator: &str) -> Option<Arithmetic> {
    match operator {
        operators::ADD => Some(Arithmetic::Add),
        operators::SUBSTRACT => Some(Arithmetic::Subtract),
        operators::MULTIPLY => Some(Arithmetic::Multiply),
        operators::DIVIDE => Some(Arithmetic::Divide),
        operators::MODULO => Some(Arithmetic::Remainder),
        _ => None,
    }
}
