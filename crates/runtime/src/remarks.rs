//! What a task asks for and does not get where it runs, a sentence each. Nothing fails for it, and
//! nobody should have to find it out.

use ferroflow_launcher::AttemptSpec;
use ferroflow_python_env::{Python, PythonVersion};

/// Settings of pods that change nothing where there are none: when a pod may end is followed, how an
/// image is pulled is the engine's.
const NOT_REPORTED: [&str; 3] = [
    "activeDeadlineSeconds",
    "imagePullPolicy",
    "imagePullSecret",
];

/// What a process does not get. `python` interprets the command, if that is one of Python's.
pub(crate) fn of_process(spec: &AttemptSpec, python: Option<&Python>) -> Vec<String> {
    let image = of_image(&spec.image, python);
    let kinds = spec.resources.limits.iter();
    let accelerators = kinds.filter(|(kind, _)| !matches!(kind.as_str(), "cpu" | "memory"));
    let accelerators = accelerators.map(|(kind, count)| {
        format!(
            "{count} {kind} is not reserved for it: a process finds whatever this machine has \
             (`--runtime docker` and `--runtime kubernetes` reserve it)"
        )
    });
    let settings = of_settings(spec, &[]);
    image
        .into_iter()
        .chain(accelerators)
        .chain(settings)
        .collect()
}

fn of_image(image: &str, python: Option<&Python>) -> Option<String> {
    if image.is_empty() {
        return None;
    }
    let (Some(wanted), Some(python)) = (PythonVersion::of_image(image), python) else {
        return Some(format!(
            "it runs on this machine and not in its image {image}: `--runtime docker` runs it there"
        ));
    };
    match python.version {
        Some(found) if wanted.fits(found) => None,
        found => {
            let found = found.map_or_else(|| python.identity.clone(), |found| found.to_string());
            Some(format!(
                "it runs on Python {found}: its image {image} has Python {wanted}, which this machine \
                 does not have (install it, or set UV_PYTHON_INSTALL_MIRROR)"
            ))
        }
    }
}

/// Settings of pods that the task has and that are not among those that are `followed`.
pub(crate) fn of_settings(spec: &AttemptSpec, followed: &[&str]) -> Option<String> {
    let asked = spec.kfp.iter().flat_map(|kfp| &kfp.platform);
    let left = asked.filter(|(name, value)| {
        let name = name.as_str();
        let none = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        !none && !NOT_REPORTED.contains(&name) && !followed.contains(&name)
    });
    let left: Vec<_> = left.map(|(name, _)| name.as_str()).collect();
    (!left.is_empty()).then(|| {
        format!(
            "{} of its Kubernetes settings is not followed here: `--runtime kubernetes` does",
            left.join(", ")
        )
    })
}
