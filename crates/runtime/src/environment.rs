//! The environment variables of a command: clean, then what is declared.

/// Expands `$(NAME)` with earlier variables and `$$` to `$`, as Kubernetes does; a later variable of
/// the same name wins. Unknown names stay as they are.
pub(crate) fn assemble(
    base: Vec<(String, String)>,
    declared: &[(String, String)],
) -> Vec<(String, String)> {
    let mut env = base;
    for (name, value) in declared {
        // Before the former value is removed: `PATH=$(PATH):/x` refers to it.
        let value = expand(value, &env);
        env.retain(|(known, _)| known != name);
        env.push((name.clone(), value));
    }
    env
}

fn expand(text: &str, env: &[(String, String)]) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(escaped) = rest.strip_prefix("$$") {
            result.push('$');
            rest = escaped;
            continue;
        }
        let reference = rest
            .strip_prefix("$(")
            .and_then(|inner| inner.split_once(')'));
        let known = reference.and_then(|(name, after)| {
            env.iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| (value, after))
        });
        if let Some((value, after)) = known {
            result.push_str(value);
            rest = after;
        } else {
            result.push('$');
            rest = &rest[1..];
        }
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_to_earlier_variables_are_expanded() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let declared = [
            pair("A", "1"),
            pair("B", "$(A)/$$(A)/$(NONE)/$A"),
            pair("A", "2"),
            pair("C", "$(BASE)$(A)"),
            pair("D", "$$5 $$$$(A) $$$(A)"),
        ];

        let env = assemble(vec![pair("BASE", "b")], &declared);

        assert_eq!(
            env,
            [
                pair("BASE", "b"),
                pair("B", "1/$(A)/$(NONE)/$A"),
                pair("A", "2"),
                pair("C", "b2"),
                pair("D", "$5 $$(A) $2")
            ]
        );
    }
}
