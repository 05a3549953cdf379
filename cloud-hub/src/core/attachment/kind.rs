//! What is this file? Its first bytes say, not its sender. What a browser could run (HTML, SVG, scripts) is at most
//! plain text here, and everything is handed out as a download.

/// Bytes from the beginning that decide.
pub(super) const HEAD_BYTES: usize = 8192;

/// Beginnings that tell a kind.
const BEGINNINGS: [(&[u8], &str); 7] = [
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"%PDF-", "application/pdf"),
];

/// Office files are ZIP archives; the name tells which.
const ARCHIVES: [(&str, &str); 3] = [
    (
        "xlsx",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ),
    (
        "docx",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ),
    ("zip", "application/zip"),
];

/// The media type of a file from its first bytes and, among files that begin alike, its name. None for what is not
/// taken.
pub(super) fn media_type(head: &[u8], name: &str) -> Option<&'static str> {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    let is = |wanted: &str| extension.eq_ignore_ascii_case(wanted);
    if let Some((_, kind)) = BEGINNINGS
        .iter()
        .find(|(beginning, _)| head.starts_with(beginning))
    {
        return Some(kind);
    }
    if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP") {
        return Some("image/webp");
    }
    if head.starts_with(b"PK\x03\x04") {
        let known = ARCHIVES.iter().find(|(extension, _)| is(extension));
        return known.map(|(_, kind)| *kind);
    }
    if !is_text(head) {
        return None;
    }
    Some(match () {
        () if is("csv") => "text/csv",
        () if is("json") => "application/json",
        () => "text/plain",
    })
}

/// UTF-8 without control characters, not counting a character cut at the end of the head.
fn is_text(head: &[u8]) -> bool {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() && head.len() == HEAD_BYTES => {
            let (whole, _) = head.split_at(error.valid_up_to());
            std::str::from_utf8(whole).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !text
        .chars()
        .any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_decides_and_the_name_only_among_equals() {
        assert_eq!(media_type(b"%PDF-1.7", "photo.png"), Some("application/pdf"));
        assert_eq!(media_type(b"RIFF\0\0\0\0WEBPVP8 ", "x"), Some("image/webp"));
        assert_eq!(media_type(b"a,b\r\n", "x.CSV"), Some("text/csv"));
        assert_eq!(media_type(b"PK\x03\x04", "x.zip"), Some("application/zip"));
        assert_eq!(media_type(b"PK\x03\x04", "x.jar"), None);
    }

    #[test]
    fn what_a_browser_or_a_machine_could_run_is_text_or_refused() {
        assert_eq!(media_type(b"<svg onload=alert(1)>", "x.svg"), Some("text/plain"));
        assert_eq!(media_type(b"<html><script>", "x.html"), Some("text/plain"));
        assert_eq!(media_type(b"\x7fELF\x02\x01", "x"), None);
        assert_eq!(media_type(b"MZ\x90\0", "x.exe"), None);
        assert_eq!(media_type(b"\xff\xfe\0", "x.txt"), None);
    }

    #[test]
    fn a_character_cut_by_the_head_is_no_reason_to_refuse_text() {
        let mut head = vec![b'a'; HEAD_BYTES - 1];
        head.push("ä".as_bytes()[0]);
        assert_eq!(media_type(&head, "x.txt"), Some("text/plain"));
        assert_eq!(
            media_type(&head[1..], "x.txt"),
            None,
            "a short file ends where it ends"
        );
    }
}
