//! Paths of tasks: keys and iteration numbers from `root`, joined by dots.
//!
//! A task's id is derived from its path, so no two tasks of a run may have the same one. A dot in a
//! key is therefore escaped: `for-loop-2.0` beside the loop `for-loop-2` is not its iteration 0.

/// The path of the task `key` in the DAG at `parent`.
pub fn child(parent: &str, key: &str) -> String {
    if !key.contains(['.', '%']) {
        return format!("{parent}.{key}");
    }
    let escaped = key.replace('%', "%25").replace('.', "%2E");
    format!("{parent}.{escaped}")
}

/// The path that releases before the escape gave the task; runs that they began keep theirs.
pub(crate) fn unescaped_child(parent: &str, key: &str) -> String {
    format!("{parent}.{key}")
}

/// The key of the task at a path, or the number of the iteration.
pub fn name(path: &str) -> String {
    let last = path.rsplit('.').next().unwrap_or_default();
    last.replace("%2E", ".").replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_keys_have_the_paths_that_they_always_had() {
        assert_eq!(child("root.for-loop-2", "train"), "root.for-loop-2.train");
        assert_eq!(child("root", "for-loop-2.0"), "root.for-loop-2%2E0");
        assert_eq!(name("root.for-loop-2%2E0"), "for-loop-2.0");
    }

    proptest! {
        #[test]
        fn every_key_has_a_path_of_its_own_and_is_found_in_it(
            one in "[a%.25E]{1,6}", other in "[a%.25E]{1,6}", inner in "[a%.25E]{1,6}"
        ) {
            prop_assert_eq!(name(&child("root", &one)), one.clone());
            prop_assert_eq!(one == other, child("root", &one) == child("root", &other));
            prop_assert_ne!(child(&child("root", &one), &inner), child("root", &other));
        }
    }
}
