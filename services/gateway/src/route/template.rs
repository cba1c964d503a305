//! Path templates: `"/" segment {"/" segment} [":" verb]`, where a segment is a literal, `*`, `**`
//! or `{field.path[=segments]}`.

use percent_encoding::percent_decode_str;

/// One segment of a template.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Segment {
    /// This very text.
    Literal(String),
    /// Any one segment that is not empty.
    Wildcard,
    /// Any number of segments; the last of a template.
    Rest,
}

/// A variable: a field path, and the segments that it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Variable {
    pub(super) field: String,
    first: usize,
    last: usize,
}

/// A template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    pub(super) segments: Vec<Segment>,
    pub(super) variables: Vec<Variable>,
    pub(super) verb: Option<String>,
}

impl Template {
    /// Reads a template.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |problem: &str| format!("path template {text:?}: {problem}");
        let rest = text
            .strip_prefix('/')
            .ok_or_else(|| wrong("it must begin with /"))?;
        // The verb follows the last colon. With a `/` or `}` behind it, the colon is part of a
        // segment.
        let (path, verb) = match rest.rsplit_once(':') {
            Some((path, verb)) if !verb.contains(['/', '}']) => (path, Some(verb.to_owned())),
            _ => (rest, None),
        };
        if verb.as_deref() == Some("") {
            return Err(wrong("the verb is empty"));
        }
        let mut template = Self {
            segments: Vec::new(),
            variables: Vec::new(),
            verb,
        };
        let mut left = path;
        loop {
            let end = match left.strip_prefix('{') {
                Some(_) => left.find('}').ok_or_else(|| wrong("a brace is open"))? + 1,
                None => left.find('/').unwrap_or(left.len()),
            };
            template
                .push(&left[..end])
                .map_err(|problem| wrong(&problem))?;
            match left[end..].strip_prefix('/') {
                Some(next) => left = next,
                None if left[end..].is_empty() => break,
                None => return Err(wrong("text follows a brace")),
            }
        }
        let rest_at = template
            .segments
            .iter()
            .position(|segment| *segment == Segment::Rest);
        if rest_at.is_some_and(|at| at + 1 != template.segments.len()) {
            return Err(wrong("** must be the last segment"));
        }
        Ok(template)
    }

    fn push(&mut self, segment: &str) -> Result<(), String> {
        let Some(inner) = segment
            .strip_prefix('{')
            .and_then(|inner| inner.strip_suffix('}'))
        else {
            self.segments.push(parse_segment(segment)?);
            return Ok(());
        };
        let (field, pattern) = inner.split_once('=').unwrap_or((inner, "*"));
        if field.is_empty() || self.variables.iter().any(|other| other.field == field) {
            return Err(format!("variable {field:?} has no name of its own"));
        }
        let first = self.segments.len();
        for part in pattern.split('/') {
            self.segments.push(parse_segment(part)?);
        }
        let last = self.segments.len() - 1;
        self.variables.push(Variable {
            field: field.to_owned(),
            first,
            last,
        });
        Ok(())
    }

    /// The raw path without the verb, if it ends with it.
    fn without_verb<'p>(&self, raw: &'p str) -> Option<&'p str> {
        match &self.verb {
            Some(verb) => raw.strip_suffix(verb.as_str())?.strip_suffix(':'),
            None => Some(raw),
        }
    }

    /// Whether the raw path ends with the verb where this template has it, though nothing is before
    /// it: then the verb is no part of a value.
    pub(super) fn has_bare_verb(&self, raw: &str) -> bool {
        let bare = self.verb.is_some() && self.segments.last() == Some(&Segment::Wildcard);
        let path = self.without_verb(raw).filter(|_| bare);
        let path = path.filter(|path| path.is_empty() || path.ends_with('/'));
        // Any text may stand in for the value that is not there.
        path.is_some_and(|path| self.variable_values(&format!("{path}x")).is_some())
    }

    /// The values of the variables, if the raw path matches. `raw` has no leading slash.
    pub(super) fn matches(&self, raw: &str) -> Option<Vec<(&str, String)>> {
        self.variable_values(self.without_verb(raw)?)
    }

    /// Whether the segments fit; most templates end here, without having allocated anything.
    fn fits(&self, raw: &str) -> bool {
        let mut parts = raw.split('/');
        for segment in &self.segments {
            let fits = match segment {
                // The last one: it takes whatever is left, also nothing.
                Segment::Rest => return true,
                Segment::Wildcard => parts.next().is_some_and(|part| !part.is_empty()),
                // A literal may come with escapes: `%6Citeral`.
                Segment::Literal(text) => parts.next().is_some_and(|part| {
                    part == text || (part.contains('%') && decode(part).as_deref() == Some(text))
                }),
            };
            if !fits {
                return false;
            }
        }
        parts.next().is_none()
    }

    fn variable_values(&self, raw: &str) -> Option<Vec<(&str, String)>> {
        if !self.fits(raw) {
            return None;
        }
        let parts: Vec<&str> = raw.split('/').collect();
        let values = self.variables.iter().map(|variable| {
            let several = variable.last > variable.first
                || self.segments.get(variable.last) == Some(&Segment::Rest);
            let value = if several {
                let end = match self.segments.get(variable.last) {
                    Some(Segment::Rest) => parts.len(),
                    _ => variable.last + 1,
                };
                // An encoded slash is part of a segment, so it stays encoded among several.
                let taken = parts.get(variable.first..end).unwrap_or_default();
                let decoded: Option<Vec<_>> =
                    taken.iter().map(|part| decode_except_slash(part)).collect();
                decoded?.join("/")
            } else {
                decode(parts.get(variable.first)?)?
            };
            Some((variable.field.as_str(), value))
        });
        values.collect()
    }
}

fn parse_segment(text: &str) -> Result<Segment, String> {
    match text {
        "" => Err("a segment is empty".to_owned()),
        "*" => Ok(Segment::Wildcard),
        "**" => Ok(Segment::Rest),
        literal if literal.contains(['{', '}', '*']) => Err(format!("segment {literal:?}")),
        literal => Ok(Segment::Literal(literal.to_owned())),
    }
}

fn decode(part: &str) -> Option<String> {
    percent_decode_str(part)
        .decode_utf8()
        .ok()
        .map(std::borrow::Cow::into_owned)
}

fn decode_except_slash(part: &str) -> Option<String> {
    let pieces = part.split("%2F").flat_map(|piece| piece.split("%2f"));
    let decoded: Option<Vec<_>> = pieces.map(decode).collect();
    Some(decoded?.join("%2F"))
}

/// Whether two hexadecimal digits follow every `%`.
pub(crate) fn has_good_escapes(raw: &str) -> bool {
    raw.match_indices('%').all(|(at, _)| {
        let digits = raw.as_bytes().get(at + 1..at + 3);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

/// Whether a raw path is one that every layer reads the same way: no dot segments, no bad escapes,
/// no NUL.
pub(super) fn is_canonical(raw: &str) -> bool {
    // Browsers take `\` for `/`. What is refused here cannot be read in another way by a proxy.
    has_good_escapes(raw)
        && !raw.contains('\\')
        && raw.split('/').all(|part| {
            // A verb is taken off before its segment is a value.
            let value = part.rsplit_once(':').map_or(part, |(value, _)| value);
            let is_dots = |text: &str| matches!(decode(text).as_deref(), Some("." | ".."));
            let is_text = decode(part).is_some_and(|text| !text.contains('\0'));
            is_text && !is_dots(part) && !is_dots(value)
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(template: &str, path: &str) -> Option<Vec<String>> {
        let template = Template::parse(template).unwrap();
        Some(
            template
                .matches(path)?
                .into_iter()
                .map(|(_, value)| value)
                .collect(),
        )
    }

    fn one(text: &str) -> Option<Vec<String>> {
        Some(vec![text.to_owned()])
    }

    #[test]
    fn rows_of_the_conformance_table() {
        assert_eq!(values("/v1/{id}", "v1/a%2Fb"), one("a/b"));
        assert_eq!(values("/v1/{p=**}", "v1/x%2Fy/z"), one("x%2Fy/z"));
        assert_eq!(
            values("/v1/runs/{id}:archive", "v1/runs/7:archive"),
            one("7")
        );
        assert_eq!(
            values("/v1/runs/{id}", "v1/runs/7:archive"),
            one("7:archive")
        );
        assert_eq!(values("/v1/{id}:retry", "v1/a:b:retry"), one("a:b"));
        assert_eq!(values("/v1/{id}:archive", "v1/:archive"), None);
        assert_eq!(values("/v1/{p=**}", "v1"), one(""));
        assert_eq!(values("/v1/{p=**}", "v1/"), one(""));
        assert_eq!(values("/v1/{n=a/*}/x", "v1/a/b/x"), one("a/b"));
        assert_eq!(values("/v1/{id}", "v1/a/"), None);
        assert_eq!(
            values("/v1/{a}/{b.c}", "v1/x/y"),
            Some(vec!["x".into(), "y".into()])
        );
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for text in [
            "v1",
            "/v1/{a",
            "/v1/{a}b",
            "/v1//a",
            "/v1/**/a",
            "/v1/a*",
            "/v1/a:",
            "/v1/{}",
            "/v1/{=*}",
            "/v1/{a}/{a}",
            "/v1/{a={b}}",
            "/v1/{a=**}/b",
            "/",
        ] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tricky_paths_are_not_canonical() {
        for path in [
            "a/../b",
            "a/%2e%2e/b",
            "a/%zz",
            "a/%0",
            "a/%00",
            "a\\b",
            "./a",
            "a/%ff",
            "a/..:do",
            "a/%2E:do",
        ] {
            assert!(!is_canonical(path), "{path}");
        }
        assert!(is_canonical("a/b.c/%2F..x/..a:do/.:a:b"));
    }

    #[test]
    fn a_verb_without_a_value_before_it_is_seen() {
        let bare =
            |template: &str, path: &str| Template::parse(template).unwrap().has_bare_verb(path);
        assert!(bare("/v1/{id}:archive", "v1/:archive"));
        assert!(bare("/{id}:archive", ":archive"));
        for (template, path) in [
            ("/v1/{id}:archive", "v1/7:archive"),
            ("/v1/{id}:archive", "v2/:archive"),
            ("/v1/{id}:archive", "v1/:retry"),
            ("/v1/{id}", "v1/:archive"),
            ("/v1/{id=**}:archive", "v1/:archive"),
            ("/v1/x:archive", "v1/:archive"),
        ] {
            assert!(!bare(template, path), "{template} {path}");
        }
    }

    proptest! {
        #[test]
        fn no_template_and_no_path_panics(template in "[/a-z{}*=:.]{0,24}", path in "[/a-z%:.0-9]{0,24}") {
            let _canonical = is_canonical(&path);
            if let Ok(template) = Template::parse(&template) {
                let _matched = template.matches(&path).is_some();
            }
        }
    }
}
