//! Bytes in JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// The name of the encoding, beside bytes that are not text.
pub(super) const BASE64: &str = "base64";

/// Bytes as they stand in an output: the text itself if they are UTF-8, else base64 and the name of that encoding.
pub(crate) fn text_or_base64(bytes: Vec<u8>) -> (String, Option<&'static str>) {
    match String::from_utf8(bytes) {
        Ok(text) => (text, None),
        Err(error) => (STANDARD.encode(error.as_bytes()), Some(BASE64)),
    }
}

/// The bytes that this stands for.
pub(super) fn of_base64(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    STANDARD.decode(text)
}

/// SHA-256 in hexadecimal.
pub(crate) fn sha256(content: &[u8]) -> String {
    format!("{:x}", Sha256::digest(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text_and_bytes_survive() {
        assert_eq!(text_or_base64("grüß".into()), ("grüß".to_owned(), None));
        assert_eq!(text_or_base64(vec![0xff, 0x00]), ("/wA=".to_owned(), Some(BASE64)));
        assert_eq!(of_base64("/wA="), Ok(vec![0xff, 0x00]));
    }
}
