//! Source files, the names in them, and which of their lines are tests.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

/// A file of Rust.
pub(crate) struct Source {
    /// From the root of the workspace, with slashes.
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) file: syn::File,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let file = syn::parse_file(text);
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            file: file.unwrap_or_else(|error| panic!("{path}: {error}")),
        }
    }

    /// Every file of the workspace at `root`.
    pub(crate) fn all(root: &Path) -> Vec<Self> {
        fn visit(root: &Path, folder: &Path, found: &mut Vec<Source>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                if path.is_dir() && name != "target" && !name.starts_with('.') {
                    visit(root, &path, found);
                } else if name.ends_with(".rs") {
                    let short = path.strip_prefix(root).unwrap().display().to_string();
                    let text = std::fs::read_to_string(&path).unwrap();
                    found.push(Source::new(&short, &text));
                }
            }
        }
        let mut found = Vec::new();
        visit(root, root, &mut found);
        found
    }

    /// The paths and imports in it, each once a line.
    pub(crate) fn names(&self) -> BTreeSet<Name> {
        let mut names = Names {
            module: self.module(),
            found: BTreeSet::new(),
            tests: 0,
        };
        names.visit_file(&self.file);
        names.found
    }

    /// `src/a/b.rs` is `crate::a::b`.
    fn module(&self) -> Vec<String> {
        let inner = self.path.split_once("/src/").map_or("", |(_, inner)| inner);
        let inner = inner.strip_suffix(".rs").unwrap_or(inner).split('/');
        let inner = inner.filter(|name| !matches!(*name, "" | "lib" | "main"));
        std::iter::once("crate")
            .chain(inner)
            .map(str::to_owned)
            .collect()
    }

    /// First and last lines of what only tests have.
    pub(crate) fn test_lines(&self) -> Vec<(usize, usize)> {
        let mut tests = Tests::default();
        tests.visit_file(&self.file);
        tests.lines
    }

    /// Paths, without `.rs`, of modules that only tests have: `#[cfg(test)] mod x;`.
    fn test_modules(&self) -> Vec<String> {
        let whole = self.path.strip_suffix(".rs").unwrap_or(&self.path);
        let (beside, name) = whole.rsplit_once('/').unwrap_or(("", whole));
        let inside = match name {
            "lib" | "main" => beside,
            _ => whole,
        };
        let modules = self.file.items.iter().filter_map(|item| match item {
            syn::Item::Mod(module) if module.content.is_none() && is_test(&module.attrs) => {
                let elsewhere = module.attrs.iter().find_map(file_of);
                Some(elsewhere.map_or_else(
                    || format!("{inside}/{}", module.ident),
                    |file| format!("{beside}/{file}"),
                ))
            }
            _ => None,
        });
        modules.collect()
    }
}

/// What `#[path = "x.rs"]` names, without `.rs`.
fn file_of(attribute: &syn::Attribute) -> Option<String> {
    let syn::Meta::NameValue(named) = &attribute.meta else {
        return None;
    };
    let syn::Expr::Lit(literal) = &named.value else {
        return None;
    };
    let syn::Lit::Str(file) = &literal.lit else {
        return None;
    };
    let file = file.value();
    let file = file.strip_suffix(".rs").unwrap_or(&file);
    named.path.is_ident("path").then(|| file.to_owned())
}

/// Files of tests alone: those of a folder `tests`, and modules that only tests have.
pub(crate) fn test_files(sources: &[Source]) -> BTreeSet<String> {
    let modules: Vec<_> = sources.iter().flat_map(Source::test_modules).collect();
    let is_test = |path: &str| {
        let outside = !path.contains("/src/") && path.contains("/tests/");
        let module = |module: &String| {
            let rest = path.strip_prefix(module.as_str());
            rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        };
        outside || modules.iter().any(module)
    };
    let paths = sources.iter().map(|source| source.path.clone());
    paths.filter(|path| is_test(path)).collect()
}

/// A path in a file, `self` and `super` resolved.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) line: usize,
    pub(crate) path: String,
    /// Whether only tests name it.
    pub(crate) test: bool,
}

impl Name {
    /// Whether it is `path` or something inside of it.
    pub(crate) fn is_in(&self, path: &str) -> bool {
        let rest = self.path.strip_prefix(path);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    }

    /// Whether it ends with `path`, however much of it was imported.
    pub(crate) fn ends_with(&self, path: &str) -> bool {
        let rest = self.path.strip_suffix(path);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with("::"))
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) if list.path.is_ident("cfg") => list.tokens.to_string() == "test",
        meta => meta
            .path()
            .segments
            .last()
            .is_some_and(|last| last.ident == "test"),
    })
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

#[derive(Default)]
struct Tests {
    lines: Vec<(usize, usize)>,
}

impl Tests {
    fn note(&mut self, span: proc_macro2::Span) {
        self.lines.push((span.start().line, span.end().line));
    }
}

impl<'a> Visit<'a> for Tests {
    fn visit_item(&mut self, item: &'a syn::Item) {
        if is_test(attributes(item)) {
            self.note(item.span());
        } else {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        if is_test(&item.attrs) {
            self.note(item.span());
        }
    }
}

struct Names {
    module: Vec<String>,
    found: BTreeSet<Name>,
    tests: usize,
}

impl Names {
    fn note(&mut self, line: usize, segments: &[String]) {
        if segments.is_empty() {
            return;
        }
        let supers = segments.iter().take_while(|name| *name == "super").count();
        let inner = self.module.len().saturating_sub(supers);
        let path = match segments.first().map(String::as_str) {
            Some("super") => [&self.module[..inner], &segments[supers..]].concat(),
            Some("self") => [&self.module[..], &segments[1..]].concat(),
            _ => segments.to_vec(),
        };
        self.found.insert(Name {
            line,
            path: path.join("::"),
            test: self.tests > 0,
        });
    }

    fn note_tree(&mut self, line: usize, before: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.note_tree(line, &with(&path.ident), &path.tree),
            syn::UseTree::Name(name) => self.note(line, &with(&name.ident)),
            syn::UseTree::Rename(name) => self.note(line, &with(&name.ident)),
            syn::UseTree::Glob(_) => self.note(line, before),
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.note_tree(line, before, tree);
                }
            }
        }
    }

    /// Paths in what a macro is given, which is not parsed.
    fn note_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let (mut line, mut colons) = (0, 0);
        for token in tokens {
            match &token {
                TokenTree::Ident(name) if colons == 2 && !path.is_empty() => {
                    path.push(name.to_string());
                    colons = 0;
                    continue;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => {
                    colons += 1;
                    continue;
                }
                _ => {}
            }
            self.note(line, &std::mem::take(&mut path));
            (line, colons) = (token.span().start().line, 0);
            match token {
                TokenTree::Ident(name) => path.push(name.to_string()),
                TokenTree::Group(group) => self.note_tokens(group.stream()),
                _ => {}
            }
        }
        self.note(line, &path);
    }
}

impl<'a> Visit<'a> for Names {
    fn visit_item(&mut self, item: &'a syn::Item) {
        let test = usize::from(is_test(attributes(item)));
        self.tests += test;
        visit::visit_item(self, item);
        self.tests -= test;
    }

    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        let test = usize::from(is_test(&item.attrs));
        self.tests += test;
        visit::visit_impl_item_fn(self, item);
        self.tests -= test;
    }

    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        self.note_tree(item.span().start().line, &[], &item.tree);
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let segments = path.segments.iter();
        let segments: Vec<_> = segments.map(|segment| segment.ident.to_string()).collect();
        self.note(path.span().start().line, &segments);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'a syn::Macro) {
        visit::visit_macro(self, called);
        self.note_tokens(called.tokens.clone());
    }
}

/// A line that breaks a rule.
#[derive(Debug, PartialEq)]
pub(crate) struct Breach {
    pub(crate) path: String,
    pub(crate) line: usize,
    /// The rule.
    pub(crate) rule: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.rule)
    }
}

/// Breaches without those of the files that are excepted from a rule. An exception that is not
/// needed is a breach, so that the list only gets shorter.
pub(crate) fn without(breaches: &[Breach], exceptions: &[(&str, &str)]) -> Vec<String> {
    let is =
        |breach: &Breach, (path, rule): (&str, &str)| breach.path == path && breach.rule == rule;
    let left = breaches.iter().filter(|breach| {
        let excepted = exceptions.iter().any(|exception| is(breach, *exception));
        !excepted
    });
    let unneeded = exceptions.iter().filter(|exception| {
        let needed = breaches.iter().any(|breach| is(breach, **exception));
        !needed
    });
    let unneeded =
        unneeded.map(|(path, rule)| format!("{path} is excepted from: {rule}; it need not be"));
    left.map(ToString::to_string).chain(unneeded).collect()
}
