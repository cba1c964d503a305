//! What the content of an artifact is: by its type, by its file's name, at last by its first bytes.

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const MARKDOWN: &str = "text/markdown; charset=utf-8";
const UNKNOWN: &str = "application/octet-stream";

/// Extensions of file names.
const EXTENSIONS: &[(&str, &str)] = &[
    ("html", HTML),
    ("htm", HTML),
    ("md", MARKDOWN),
    ("markdown", MARKDOWN),
    ("json", "application/json"),
    ("txt", TEXT),
    ("log", TEXT),
    ("csv", TEXT),
    ("tsv", TEXT),
    ("yaml", TEXT),
    ("yml", TEXT),
    ("py", TEXT),
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("svg", "image/svg+xml"),
    ("pdf", "application/pdf"),
    ("gz", "application/gzip"),
    ("zip", "application/zip"),
];

/// First bytes of images (WHATWG MIME Sniffing, §6.1).
const IMAGES: &[(&[u8], &str)] = &[
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
];

/// The type of content. `inner` says that it is a file of an artifact that is a folder, whose type
/// then says nothing.
pub(crate) fn content_type(
    schema_title: &str,
    inner: bool,
    name: &str,
    first: &[u8],
) -> &'static str {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    let extension = extension.to_ascii_lowercase();
    match schema_title {
        "system.HTML" if !inner => return HTML,
        "system.Markdown" if !inner => return MARKDOWN,
        _ => {}
    }
    if let Some((_, kind)) = EXTENSIONS.iter().find(|(known, _)| *known == extension) {
        return kind;
    }
    if let Some((_, kind)) = IMAGES.iter().find(|(magic, _)| first.starts_with(magic)) {
        return kind;
    }
    if first.starts_with(b"RIFF") && first.get(8..12) == Some(b"WEBP".as_slice()) {
        return "image/webp";
    }
    if is_text(first) { TEXT } else { UNKNOWN }
}

/// UTF-8 without control characters; the last character may be cut.
fn is_text(first: &[u8]) -> bool {
    let whole = match std::str::from_utf8(first) {
        Ok(_) => first.len(),
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        Err(_) => return false,
    };
    // Control characters that are binary data by WHATWG MIME Sniffing; form feed and escape are not.
    let control = |byte: &u8| *byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r' | 0x0c | 0x1b);
    !first[..whole].iter().any(control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_artifacts_type_decides_then_the_name_then_the_bytes() {
        let of = |title, name, first: &[u8]| content_type(title, false, name, first);

        assert_eq!(of("system.HTML", "report", b"x"), HTML);
        assert_eq!(of("system.Markdown", "report", b"x"), MARKDOWN);
        assert_eq!(of("system.Artifact", "plot.PNG", b"x"), "image/png");
        assert_eq!(
            of("system.Artifact", "plot", b"\x89PNG\r\n\x1a\nx"),
            "image/png"
        );
        assert_eq!(of("system.Dataset", "data", b"a,b\n1,2\n"), TEXT);
        assert_eq!(of("system.Model", "model", b"\x80\x04\x95"), UNKNOWN);
        assert_eq!(of("system.Model", "model", b"a\0b"), UNKNOWN);
        assert_eq!(content_type("system.HTML", true, "x.bin", b"\0"), UNKNOWN);
    }

    #[test]
    fn a_character_that_is_cut_is_still_text() {
        assert!(is_text("ä".as_bytes().get(..1).unwrap()));
        assert!(!is_text(b"\xff\xfe"));
        assert!(is_text(b""));
    }
}
