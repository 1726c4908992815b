//! Signatures of requests: AWS Signature Version 4, in the `Authorization` header (Amazon S3 API Reference, "Authenticating Requests").

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use jiff::Timestamp;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "s3";

/// What requests are signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Id of the key.
    pub access_key: String,
    /// The key.
    pub secret_key: String,
}

/// A request that is to be signed.
pub struct Unsigned<'a> {
    /// HTTP method.
    pub method: &'a str,
    /// Path, encoded as it is sent.
    pub path: &'a str,
    /// Names and values of the query, not encoded.
    pub query: &'a [(&'a str, &'a str)],
    /// All headers that are to be signed, with lower-case names, `host`, `x-amz-date` and `x-amz-content-sha256` among them.
    pub headers: &'a [(&'a str, &'a str)],
    /// SHA-256 of the body in hexadecimal.
    pub payload: &'a str,
}

/// The value of the `Authorization` header.
pub fn authorization(
    request: &Unsigned<'_>,
    credentials: &Credentials,
    region: &str,
    at: Timestamp,
) -> String {
    let day = at.strftime("%Y%m%d").to_string();
    let scope = format!("{day}/{region}/{SERVICE}/aws4_request");
    let mut headers: Vec<_> = request.headers.to_vec();
    headers.sort_unstable();
    let signed: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let signed = signed.join(";");
    let lines: String = headers
        .iter()
        .map(|(name, value)| format!("{name}:{}\n", value.trim()))
        .collect();
    let canonical = format!(
        "{}\n{}\n{}\n{lines}\n{signed}\n{}",
        request.method,
        request.path,
        encoded_query(request.query),
        request.payload
    );
    let text = format!(
        "{ALGORITHM}\n{}\n{scope}\n{}",
        moment(at),
        sha256(canonical.as_bytes())
    );
    let mut key = format!("AWS4{}", credentials.secret_key).into_bytes();
    for step in [day.as_str(), region, SERVICE, "aws4_request", &text] {
        key = sign(&Key::new(HMAC_SHA256, &key), step.as_bytes())
            .as_ref()
            .to_vec();
    }
    format!(
        "{ALGORITHM} Credential={}/{scope},SignedHeaders={signed},Signature={}",
        credentials.access_key,
        hex(&key)
    )
}

/// The value of the `x-amz-date` header.
pub fn moment(at: Timestamp) -> String {
    at.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// A query in the one form in which it is signed and sent.
pub fn encoded_query(query: &[(&str, &str)]) -> String {
    let mut pairs: Vec<_> = query
        .iter()
        .map(|(name, value)| format!("{}={}", encoded(name, false), encoded(value, false)))
        .collect();
    pairs.sort_unstable();
    pairs.join("&")
}

/// Percent-encodes all but what is unreserved (RFC 3986, section 2.3), and slashes of paths.
pub fn encoded(text: &str, is_path: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (is_path && byte == b'/') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "examplebucket.s3.amazonaws.com";
    const AT: &str = "2013-05-24T00:00:00Z";
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// The examples of "Signature Calculations for the Authorization Header" in the Amazon S3 API Reference.
    fn signature(
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        more: &[(&str, &str)],
        payload: &str,
    ) -> String {
        let mut headers = vec![
            ("host", HOST),
            ("x-amz-date", "20130524T000000Z"),
            ("x-amz-content-sha256", payload),
        ];
        headers.extend(more);
        let request = Unsigned {
            method,
            path,
            query,
            headers: &headers,
            payload,
        };
        let credentials = Credentials {
            access_key: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
        };
        let at: Timestamp = AT.parse().unwrap();
        assert_eq!(moment(at), "20130524T000000Z");
        let header = authorization(&request, &credentials, "us-east-1", at);
        assert!(header.starts_with(
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders="
        ));
        let (_, signature) = header.split_once("Signature=").unwrap();
        signature.to_owned()
    }

    #[test]
    fn the_published_examples_come_out() {
        let get = signature("GET", "/test.txt", &[], &[("range", "bytes=0-9")], EMPTY);
        assert_eq!(
            get,
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        let put = signature(
            "PUT",
            &encoded("/test$file.text", true),
            &[],
            &[
                ("date", "Fri, 24 May 2013 00:00:00 GMT"),
                ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
            ],
            &sha256(b"Welcome to Amazon S3."),
        );
        assert_eq!(
            put,
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
        );
        let lifecycle = signature("GET", "/", &[("lifecycle", "")], &[], EMPTY);
        assert_eq!(
            lifecycle,
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
        );
        let list = signature(
            "GET",
            "/",
            &[("prefix", "J"), ("max-keys", "2")],
            &[],
            EMPTY,
        );
        assert_eq!(
            list,
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
        );
    }

    #[test]
    fn all_but_the_unreserved_is_encoded() {
        assert_eq!(encoded("a b/ü+~", true), "a%20b/%C3%BC%2B~");
        assert_eq!(encoded("a/b", false), "a%2Fb");
    }
}
