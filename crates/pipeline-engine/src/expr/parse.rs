//! Tokens to a tree, by precedence.

use super::ExprError;
use super::lex::{Kind, Token, tokens};

/// A node of the tree.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(String),
    Name(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    Field(Box<Node>, String),
    Index(Box<Node>, Box<Node>),
    Call(String, Vec<Node>),
    Not(Box<Node>),
    Negate(Box<Node>),
    Binary(Operator, Box<Node>, Box<Node>),
    Choice(Box<Node>, Box<Node>, Box<Node>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// Binary operators, the loosest binding first; all bind to the left.
const LEVELS: [&[(&str, Operator)]; 5] = [
    &[("||", Operator::Or)],
    &[("&&", Operator::And)],
    &[
        ("==", Operator::Equal),
        ("!=", Operator::NotEqual),
        ("<=", Operator::LessEqual),
        (">=", Operator::GreaterEqual),
        ("<", Operator::Less),
        (">", Operator::Greater),
        ("in", Operator::In),
    ],
    &[("+", Operator::Add), ("-", Operator::Subtract)],
    &[
        ("*", Operator::Multiply),
        ("/", Operator::Divide),
        ("%", Operator::Remainder),
    ],
];

/// Deeper trees are refused, so that neither reading nor evaluating one can exhaust the stack.
const DEPTH_MAX: usize = 100;

pub(super) fn parse(text: &str) -> Result<Node, ExprError> {
    let mut parser = Parser {
        tokens: tokens(text)?,
        next: 0,
        depth: 0,
        length: text.len(),
    };
    let node = parser.choice()?;
    match parser.tokens.get(parser.next) {
        None => Ok(node),
        Some(token) => Err(ExprError(format!("unexpected text at {}", token.at))),
    }
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    depth: usize,
    length: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Kind> {
        self.tokens.get(self.next).map(|token| &token.kind)
    }

    fn at(&self) -> usize {
        self.tokens
            .get(self.next)
            .map_or(self.length, |token| token.at)
    }

    fn take(&mut self, symbol: &str) -> bool {
        let found = match self.peek() {
            Some(Kind::Symbol(found)) => *found == symbol,
            // `in` is the one operator that is written like a name.
            Some(Kind::Name(name)) => symbol == "in" && name == "in",
            _ => false,
        };
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &str) -> Result<(), ExprError> {
        if self.take(symbol) {
            return Ok(());
        }
        Err(ExprError(format!("expected {symbol} at {}", self.at())))
    }

    fn deeper<T>(
        &mut self,
        inner: impl FnOnce(&mut Self) -> Result<T, ExprError>,
    ) -> Result<T, ExprError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(ExprError(format!(
                "an expression may be {DEPTH_MAX} levels deep at most"
            )));
        }
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn choice(&mut self) -> Result<Node, ExprError> {
        self.deeper(|parser| {
            let condition = parser.binary(0)?;
            if !parser.take("?") {
                return Ok(condition);
            }
            let then = parser.choice()?;
            parser.expect(":")?;
            let otherwise = parser.choice()?;
            Ok(Node::Choice(
                Box::new(condition),
                Box::new(then),
                Box::new(otherwise),
            ))
        })
    }

    fn binary(&mut self, level: usize) -> Result<Node, ExprError> {
        let Some(operators) = LEVELS.get(level) else {
            return self.unary();
        };
        let mut left = self.binary(level + 1)?;
        let mut length = 0;
        while let Some((_, operator)) = operators.iter().find(|(symbol, _)| self.take(symbol)) {
            length += 1;
            // Operators bind to the left, so a long chain is a deep tree without being nested.
            if length > DEPTH_MAX {
                return Err(ExprError(format!(
                    "more than {DEPTH_MAX} operators in a row"
                )));
            }
            let right = self.binary(level + 1)?;
            left = Node::Binary(*operator, Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Node, ExprError> {
        if self.take("!") {
            return self.deeper(|parser| Ok(Node::Not(Box::new(parser.unary()?))));
        }
        if self.take("-") {
            return self.deeper(|parser| {
                Ok(match parser.unary()? {
                    // A literal is never negative, so this cannot overflow.
                    Node::Int(number) => Node::Int(-number),
                    Node::Double(number) => Node::Double(-number),
                    other => Node::Negate(Box::new(other)),
                })
            });
        }
        self.member()
    }

    fn member(&mut self) -> Result<Node, ExprError> {
        let mut node = self.primary()?;
        for _ in 0..DEPTH_MAX {
            if self.take(".") {
                let name = self.name()?;
                node = if self.take("(") {
                    let mut arguments = vec![node];
                    arguments.extend(self.items(")")?);
                    Node::Call(name, arguments)
                } else {
                    Node::Field(Box::new(node), name)
                };
            } else if self.take("[") {
                let index = self.choice()?;
                self.expect("]")?;
                node = Node::Index(Box::new(node), Box::new(index));
            } else {
                return Ok(node);
            }
        }
        Err(ExprError(format!(
            "more than {DEPTH_MAX} accesses in a row"
        )))
    }

    fn name(&mut self) -> Result<String, ExprError> {
        match self.peek() {
            Some(Kind::Name(name)) => {
                let name = name.clone();
                self.next += 1;
                Ok(name)
            }
            _ => Err(ExprError(format!("expected a name at {}", self.at()))),
        }
    }

    fn items(&mut self, end: &str) -> Result<Vec<Node>, ExprError> {
        let mut items = Vec::new();
        while !self.take(end) {
            if !items.is_empty() {
                self.expect(",")?;
            }
            items.push(self.choice()?);
        }
        Ok(items)
    }

    fn primary(&mut self) -> Result<Node, ExprError> {
        if self.take("(") {
            let node = self.choice()?;
            self.expect(")")?;
            return Ok(node);
        }
        if self.take("[") {
            return self.items("]").map(Node::List);
        }
        if self.take("{") {
            return self.map();
        }
        let at = self.at();
        let Some(kind) = self.peek().cloned() else {
            return Err(ExprError(format!("expected a value at {at}")));
        };
        self.next += 1;
        match kind {
            Kind::Int(number) => Ok(Node::Int(number)),
            Kind::Double(number) => Ok(Node::Double(number)),
            Kind::Text(text) => Ok(Node::Text(text)),
            Kind::Name(name) if self.take("(") => Ok(Node::Call(name, self.items(")")?)),
            Kind::Name(name) => Ok(match name.as_str() {
                "true" => Node::Bool(true),
                "false" => Node::Bool(false),
                "null" => Node::Null,
                _ => Node::Name(name),
            }),
            Kind::Symbol(symbol) => Err(ExprError(format!("unexpected {symbol} at {at}"))),
        }
    }

    fn map(&mut self) -> Result<Node, ExprError> {
        let mut entries = Vec::new();
        while !self.take("}") {
            if !entries.is_empty() {
                self.expect(",")?;
            }
            let key = self.choice()?;
            self.expect(":")?;
            entries.push((key, self.choice()?));
        }
        Ok(Node::Map(entries))
    }
}
