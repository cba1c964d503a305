//! How long files and functions may be, and what a file begins with.

use syn::spanned::Spanned as _;
use syn::visit::Visit;

use crate::source::Source;

const FILE_MAX: usize = 500;
const FUNCTION_MAX: usize = 70;
const TEST_FUNCTION_MAX: usize = 120;

/// Functions that are too long, with their lines.
#[derive(Default)]
struct Lengths {
    long: Vec<String>,
    path: String,
    test: bool,
}

impl Lengths {
    fn check(&mut self, name: &syn::Ident, block: &syn::Block) {
        let (first, last) = (block.span().start().line, block.span().end().line);
        let limit = if self.test {
            TEST_FUNCTION_MAX
        } else {
            FUNCTION_MAX
        };
        if last - first > limit {
            let path = &self.path;
            self.long
                .push(format!("{path}:{first}: {name} has {} lines", last - first));
        }
    }
}

impl<'a> Visit<'a> for Lengths {
    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        self.check(&item.sig.ident, &item.block);
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        self.check(&item.sig.ident, &item.block);
        syn::visit::visit_impl_item_fn(self, item);
    }
}

/// Breaches of the rules on files and functions.
pub(crate) fn breaches(source: &Source) -> Vec<String> {
    let Source { path, text, file } = source;
    let mut breaches = Vec::new();
    let lines = text.lines().count();
    if lines > FILE_MAX {
        breaches.push(format!("{path} has {lines} lines"));
    }
    if path.ends_with("/mod.rs") {
        breaches.push(format!("{path}: a module's file is called like the module"));
    }
    let is_test = path.contains("tests");
    if !text.starts_with("//!") && !is_test {
        breaches.push(format!("{path} has no header"));
    }
    let mut lengths = Lengths {
        path: path.clone(),
        test: is_test,
        ..Lengths::default()
    };
    lengths.visit_file(file);
    breaches.extend(lengths.long);
    breaches
}
