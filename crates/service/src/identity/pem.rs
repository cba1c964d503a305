//! Ed25519 keys out of PEM files: PKCS#8 (RFC 8410), a public key, or a certificate that holds one.
//!
//! Only what these three need of DER is read, and every length is checked.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The object identifier 1.3.101.112, id-Ed25519.
const ED25519: [u8; 3] = [0x2b, 0x65, 0x70];

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
/// `[0] EXPLICIT`, the version of a certificate.
const VERSION: u8 = 0xa0;

type Key = [u8; 32];

/// The secret half of a `PRIVATE KEY`.
pub(super) fn private_key(text: &str) -> Result<Key, String> {
    let (label, der) = section(text)?;
    if label != "PRIVATE KEY" {
        return Err(format!(
            "it holds a {label}, and a PRIVATE KEY (PKCS#8) is needed: openssl genpkey -algorithm \
             ed25519"
        ));
    }
    let not_ed25519 = || "the private key is not an Ed25519 key".to_owned();
    let mut outer = Reader(&der);
    let mut info = Reader(outer.take(SEQUENCE).ok_or_else(not_ed25519)?);
    info.take(INTEGER).ok_or_else(not_ed25519)?;
    algorithm(&mut info).ok_or_else(not_ed25519)?;
    let mut inner = Reader(info.take(OCTET_STRING).ok_or_else(not_ed25519)?);
    let key = inner.take(OCTET_STRING).ok_or_else(not_ed25519)?;
    key.try_into().map_err(|_| not_ed25519())
}

/// The key of a `PUBLIC KEY` or a `CERTIFICATE`.
pub(super) fn public_key(text: &str) -> Result<Key, String> {
    let (label, der) = section(text)?;
    let info = match label.as_str() {
        "PUBLIC KEY" => Some(der.as_slice()),
        "CERTIFICATE" => key_of_certificate(&der),
        _ => {
            return Err(format!(
                "it holds a {label}, and a PUBLIC KEY or a CERTIFICATE is needed"
            ));
        }
    };
    info.and_then(key_of_info)
        .ok_or_else(|| format!("the key of its {label} is not an Ed25519 key"))
}

/// The first section: its label and its bytes.
fn section(text: &str) -> Result<(String, Vec<u8>), String> {
    let none = || "it is not a PEM file".to_owned();
    let (_, rest) = text.split_once("-----BEGIN ").ok_or_else(none)?;
    let (label, rest) = rest.split_once("-----").ok_or_else(none)?;
    let end = format!("-----END {label}-----");
    let (body, _) = rest.split_once(&end).ok_or_else(none)?;
    let body: String = body.split_whitespace().collect();
    let der = STANDARD.decode(body).map_err(|_| none())?;
    Ok((label.to_owned(), der))
}

/// `subjectPublicKeyInfo` of a certificate (RFC 5280 §4.1).
fn key_of_certificate(der: &[u8]) -> Option<&[u8]> {
    let mut certificate = Reader(Reader(der).take(SEQUENCE)?);
    let mut signed = Reader(certificate.take(SEQUENCE)?);
    // It is missing in certificates of version 1, the default (RFC 5280 §4.1).
    if signed.0.first() == Some(&VERSION) {
        signed.take(VERSION)?;
    }
    signed.take(INTEGER)?;
    // Signature algorithm, issuer, validity, subject.
    for _ in 0..4 {
        signed.take(SEQUENCE)?;
    }
    Some(signed.0)
}

/// The key of a `SubjectPublicKeyInfo`.
fn key_of_info(der: &[u8]) -> Option<Key> {
    let mut info = Reader(Reader(der).take(SEQUENCE)?);
    algorithm(&mut info)?;
    // The first byte of a BIT STRING says how many bits of the last one are not used.
    let (unused, key) = info.take(BIT_STRING)?.split_first()?;
    (*unused == 0).then_some(key)?.try_into().ok()
}

/// Passes an algorithm that must be Ed25519.
fn algorithm(reader: &mut Reader<'_>) -> Option<()> {
    let mut algorithm = Reader(reader.take(SEQUENCE)?);
    (algorithm.take(OBJECT_IDENTIFIER)? == ED25519).then_some(())
}

/// Reads one element after the other.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The content of the next element, which must be of this kind.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, rest) = self.0.split_first()?;
        let (first, rest) = rest.split_first()?;
        let (length, rest) = if *first < 0x80 {
            (usize::from(*first), rest)
        } else {
            let (bytes, rest) = rest.split_at_checked(usize::from(*first & 0x7f))?;
            if bytes.len() > 4 {
                return None;
            }
            let length = bytes
                .iter()
                .fold(0, |length, byte| length << 8 | usize::from(*byte));
            (length, rest)
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        (*found == tag).then_some(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // openssl genpkey -algorithm ed25519; openssl pkey -pubout; openssl req -x509
    const PRIVATE: &str = include_str!("testdata/private.pem");
    const PUBLIC: &str = include_str!("testdata/public.pem");
    const CERTIFICATE: &str = include_str!("testdata/certificate.pem");
    const OTHER: &str = include_str!("testdata/p256.pem");

    #[test]
    fn all_three_files_are_of_one_key() {
        let secret = private_key(PRIVATE).unwrap();
        let derived = ed25519_dalek::SigningKey::from_bytes(&secret)
            .verifying_key()
            .to_bytes();

        assert_eq!(public_key(PUBLIC), Ok(derived));
        assert_eq!(public_key(CERTIFICATE), Ok(derived));
    }

    #[test]
    fn what_is_something_else_is_told() {
        assert_eq!(public_key("x").unwrap_err(), "it is not a PEM file");
        assert!(public_key(PRIVATE).unwrap_err().contains("PRIVATE KEY"));
        assert!(private_key(PUBLIC).unwrap_err().contains("openssl genpkey"));
        let other = private_key(OTHER).unwrap_err();
        assert_eq!(other, "the private key is not an Ed25519 key");
        let short = "-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----\n";
        assert!(
            public_key(short)
                .unwrap_err()
                .contains("not an Ed25519 key")
        );
    }
}
