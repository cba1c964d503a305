//! Lists that come in pages.

/// Everything of a list: `page` gives what follows a token, the empty one at first, and the token of
/// the next page, empty after the last.
pub(super) async fn all<T>(
    mut page: impl AsyncFnMut(String) -> anyhow::Result<(Vec<T>, String)>,
) -> anyhow::Result<Vec<T>> {
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let (some, next) = page(token).await?;
        all.extend(some);
        if next.is_empty() {
            return Ok(all);
        }
        token = next;
    }
}
