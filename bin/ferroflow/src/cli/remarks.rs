//! What tasks ask for and do not get where they run: another Python, no image, no GPU.

use std::collections::BTreeMap;

use ferroflow_proto::events::v1::Event;
use ferroflow_proto::pipelines::v1::Task;
use prost_types::value::Kind;

/// The remarks that an event has of its task.
pub(super) fn of_event(event: &Event) -> Vec<String> {
    let found = event
        .data
        .as_ref()
        .and_then(|data| data.fields.get("remarks"));
    let Some(Kind::ListValue(list)) = found.and_then(|value| value.kind.as_ref()) else {
        return Vec::new();
    };
    let texts = list.values.iter().filter_map(|value| match &value.kind {
        Some(Kind::StringValue(text)) => Some(text.clone()),
        _ => None,
    });
    texts.collect()
}

/// A line for each remark, with the tasks that it is about.
pub(super) fn lines(tasks: &[Task]) -> Vec<String> {
    let mut about: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for task in tasks {
        for remark in &task.remarks {
            about.entry(remark).or_default().push(&task.name);
        }
    }
    let line = |(remark, mut names): (&str, Vec<&str>)| {
        names.dedup();
        format!("{}: {remark}", names.join(", "))
    };
    about.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remark_about_many_tasks_is_one_line() {
        let task = |name: &str, remark: &str| Task {
            name: name.to_owned(),
            remarks: vec![remark.to_owned()],
            ..Task::default()
        };
        let tasks = [task("a", "no GPU"), task("b", "no GPU"), task("c", "other")];

        assert_eq!(lines(&tasks), ["a, b: no GPU", "c: other"]);
    }
}
