//! A bucket, and what is asked of it.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use jiff::Timestamp;
use lodge_client::{Authority, Exchanged, Fetcher, fetch_url};
use url::Url;

use crate::retry::Tries;
use crate::sign::{Credentials, Unsigned, authorization, encoded, encoded_query, moment, sha256};
use crate::{S3Error, xml};

/// Longest answer of XML, in bytes: a list has at most a thousand keys of 1 KiB.
const MOST_XML: usize = 8 << 20;

/// Most pages of a list that are read.
const MOST_PAGES: u32 = 1000;

/// Which bucket, and how it is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// URL of the service: scheme, host and port.
    pub endpoint: String,
    /// Region for which requests are signed.
    pub region: String,
    /// Its name.
    pub bucket: String,
    /// What requests are signed with.
    pub credentials: Credentials,
}

/// What is wrong with a setting, for people.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Of `endpoint`.
    #[error("{0}")]
    Endpoint(String),
    /// Of `region`.
    #[error("the name of a region has 1 to 64 letters, digits and '-'")]
    Region,
    /// Of `bucket`.
    #[error("the name of a bucket has 3 to 63 lower-case letters, digits, '-', '.' and '_'")]
    Bucket,
    /// Of the id of the key.
    #[error("the id of a key has 1 to 128 letters, digits and signs, without blanks, '/' and ','")]
    AccessKey,
    /// Of the key.
    #[error("a secret key has 1 to 256 printable characters without blanks")]
    SecretKey,
}

/// A bucket. Clones are the same.
#[derive(Clone)]
pub struct Bucket {
    inner: Arc<Inner>,
    patient: bool,
}

struct Inner {
    fetcher: Fetcher,
    endpoint: Url,
    settings: Settings,
}

/// An object in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Its length in bytes.
    pub size: u64,
}

/// A request to the service.
#[derive(Clone)]
pub(crate) struct Ask<'a> {
    pub(crate) method: &'a str,
    /// Nothing for the bucket itself.
    pub(crate) key: &'a str,
    pub(crate) query: &'a [(&'a str, &'a str)],
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) body: Bytes,
}

impl<'a> Ask<'a> {
    pub(crate) fn new(method: &'a str, key: &'a str) -> Self {
        Self {
            method,
            key,
            query: &[],
            headers: &[],
            body: Bytes::new(),
        }
    }
}

impl Settings {
    /// Checks what can be checked without asking.
    fn endpoint(&self) -> Result<Url, SettingsError> {
        let wrong = |text: String| SettingsError::Endpoint(text);
        let url = fetch_url(&self.endpoint).map_err(|error| wrong(error.to_string()))?;
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            let text = "it is the service alone, without a bucket: https://s3.example.com";
            return Err(wrong(text.to_owned()));
        }
        let plain = |text: &str, most: usize, more: &[u8]| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || more.contains(&byte);
            (1..=most).contains(&text.len()) && text.bytes().all(allowed)
        };
        if !plain(&self.region, 64, b"-") {
            return Err(SettingsError::Region);
        }
        let lower = !self.bucket.bytes().any(|byte| byte.is_ascii_uppercase());
        // Dots alone are a path to somewhere else.
        let dots = self.bucket.bytes().all(|byte| byte == b'.');
        if self.bucket.len() < 3 || !plain(&self.bucket, 63, b"-._") || !lower || dots {
            return Err(SettingsError::Bucket);
        }
        let key = &self.credentials.access_key;
        let graphic = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if key.is_empty() || key.len() > 128 || !graphic(key) || key.contains(['/', ',']) {
            return Err(SettingsError::AccessKey);
        }
        let secret = &self.credentials.secret_key;
        if secret.is_empty() || secret.len() > 256 || !graphic(secret) {
            return Err(SettingsError::SecretKey);
        }
        Ok(url)
    }
}

impl Bucket {
    /// Prepares to ask for a bucket; nothing is sent yet. `certificates` are authorities that are trusted beside the public ones, as PEM;
    /// `anywhere` says that the service may be on this machine.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn new(
        settings: Settings,
        certificates: &[String],
        anywhere: bool,
    ) -> Result<Self, SettingsError> {
        let endpoint = settings.endpoint()?;
        let authorities = certificates.iter().map(|pem| Authority::from_pem(pem));
        // They were read when they were added.
        let authorities: Vec<Authority> = authorities.flatten().collect();
        let fetcher = Fetcher::trusting(&authorities);
        let fetcher = if anywhere {
            fetcher.anywhere()
        } else {
            fetcher
        };
        let inner = Inner {
            fetcher,
            endpoint,
            settings,
        };
        Ok(Self {
            inner: Arc::new(inner),
            patient: true,
        })
    }

    /// The same, of which nothing is asked twice: for somebody who waits to hear what is wrong.
    #[must_use]
    pub fn impatient(&self) -> Self {
        Self {
            patient: false,
            ..self.clone()
        }
    }

    /// Writes an object, whole or not at all.
    ///
    /// # Errors
    /// [`S3Error`].
    pub async fn put(&self, key: &str, content: Bytes) -> Result<(), S3Error> {
        let put = Ask {
            body: content,
            ..Ask::new("PUT", key)
        };
        self.ask(put).await.map(drop)
    }

    /// An object of at most `most` bytes, if there is one.
    ///
    /// # Errors
    /// [`S3Error`].
    pub async fn get(&self, key: &str, most: usize) -> Result<Option<Vec<u8>>, S3Error> {
        let mut tries = Tries::new(self.patient);
        loop {
            let answer = match self.ask(Ask::new("GET", key)).await {
                Ok(answer) => answer,
                Err(error) if error.is_missing() => return Ok(None),
                Err(error) => return Err(error),
            };
            match answer.all(most).await {
                Ok(all) => return Ok(Some(all)),
                Err(error) => tries.again(S3Error::Unreachable(error.to_string())).await?,
            }
        }
    }

    /// Removes an object, if there is one.
    ///
    /// # Errors
    /// [`S3Error`].
    pub async fn delete(&self, key: &str) -> Result<(), S3Error> {
        match self.ask(Ask::new("DELETE", key)).await {
            Err(error) if !error.is_missing() => Err(error),
            _ => Ok(()),
        }
    }

    /// All objects whose keys begin with `prefix`.
    ///
    /// # Errors
    /// [`S3Error`].
    pub async fn list(&self, prefix: &str) -> Result<Vec<Listed>, S3Error> {
        let (mut listed, mut next) = (Vec::new(), None::<String>);
        for _ in 0..MOST_PAGES {
            let mut query = vec![("list-type", "2"), ("prefix", prefix)];
            query.extend(next.as_deref().map(|next| ("continuation-token", next)));
            let page = self.xml("GET", "", &query, Bytes::new()).await?;
            for object in xml::elements(&page, "Contents") {
                let field = |name| xml::element(object, name).map(xml::text);
                let (key, size) = (field("Key"), field("Size"));
                let size = size.and_then(|size| size.parse().ok());
                let (Some(key), Some(size)) = (key, size) else {
                    return Err(S3Error::Protocol("a list without keys".to_owned()));
                };
                listed.push(Listed { key, size });
            }
            next = xml::element(&page, "NextContinuationToken").map(xml::text);
            if next.is_none() {
                return Ok(listed);
            }
        }
        Err(S3Error::Protocol("a list without an end".to_owned()))
    }

    /// Ends uploads of parts, of objects whose keys begin with `prefix`, that nobody goes on with: after a power cut.
    ///
    /// # Errors
    /// [`S3Error`].
    pub async fn abort_uploads(&self, prefix: &str) -> Result<(), S3Error> {
        let query = [("uploads", ""), ("prefix", prefix)];
        let page = self.xml("GET", "", &query, Bytes::new()).await?;
        for upload in xml::elements(&page, "Upload") {
            let field = |name| xml::element(upload, name).map(xml::text);
            if let (Some(key), Some(id)) = (field("Key"), field("UploadId")) {
                self.abort(&key, &id).await?;
            }
        }
        Ok(())
    }

    pub(crate) async fn abort(&self, key: &str, upload: &str) -> Result<(), S3Error> {
        let query = [("uploadId", upload)];
        let abort = Ask {
            query: &query,
            ..Ask::new("DELETE", key)
        };
        match self.ask(abort).await {
            Err(error) if error.code() != Some("NoSuchUpload") => Err(error),
            _ => Ok(()),
        }
    }

    /// An answer of XML.
    pub(crate) async fn xml(
        &self,
        method: &str,
        key: &str,
        query: &[(&str, &str)],
        body: Bytes,
    ) -> Result<String, S3Error> {
        let ask = Ask {
            query,
            body,
            ..Ask::new(method, key)
        };
        let mut tries = Tries::new(self.patient);
        loop {
            let answer = self.ask(ask.clone()).await?;
            let broken = match answer.all(MOST_XML).await {
                Ok(text) => {
                    let text = String::from_utf8_lossy(&text).into_owned();
                    // Where the work takes long, the refusal comes after a status that promises success.
                    match xml::element(&text, "Error") {
                        None => return Ok(text),
                        Some(error) => refusal(500, error),
                    }
                }
                Err(error) => S3Error::Unreachable(error.to_string()),
            };
            tries.again(broken).await?;
        }
    }

    /// Asks, and asks again while that may help; what is refused is an error.
    pub(crate) async fn ask(&self, ask: Ask<'_>) -> Result<Exchanged, S3Error> {
        let mut tries = Tries::new(self.patient);
        loop {
            match self.ask_once(&ask).await {
                Ok(answer) => return Ok(answer),
                Err(error) => tries.again(error).await?,
            }
        }
    }

    async fn ask_once(&self, ask: &Ask<'_>) -> Result<Exchanged, S3Error> {
        let payload = match ask.body.len() {
            0 => sha256(b""),
            _ => {
                let body = ask.body.clone();
                tokio::task::spawn_blocking(move || sha256(&body))
                    .await
                    .map_err(|error| S3Error::Protocol(error.to_string()))?
            }
        };
        let request = self.signed(ask, &payload, Timestamp::now())?;
        let inner = &self.inner;
        let answer = inner
            .fetcher
            .exchange_once(&inner.endpoint, request)
            .await?;
        if answer.parts.status.is_success() {
            return Ok(answer);
        }
        let status = answer.parts.status.as_u16();
        // The reason is for people; without it the status has to do.
        let text = answer.all(MOST_XML).await.unwrap_or_default();
        Err(refusal(status, &String::from_utf8_lossy(&text)))
    }

    fn signed(
        &self,
        ask: &Ask<'_>,
        payload: &str,
        at: Timestamp,
    ) -> Result<Request<Bytes>, S3Error> {
        let Inner {
            endpoint, settings, ..
        } = &*self.inner;
        let path = match ask.key {
            "" => format!("/{}", settings.bucket),
            key => format!("/{}/{}", settings.bucket, encoded(key, true)),
        };
        let name = endpoint.host_str().unwrap_or_default();
        let host = match endpoint.port() {
            Some(port) => format!("{name}:{port}"),
            None => name.to_owned(),
        };
        let date = moment(at);
        let mut headers = vec![
            ("host", host.as_str()),
            ("x-amz-date", &date),
            ("x-amz-content-sha256", payload),
        ];
        headers.extend(ask.headers);
        let unsigned = Unsigned {
            method: ask.method,
            path: &path,
            query: ask.query,
            headers: &headers,
            payload,
        };
        let signature = authorization(&unsigned, &settings.credentials, &settings.region, at);
        let uri = match ask.query {
            [] => path.clone(),
            query => format!("{path}?{}", encoded_query(query)),
        };
        let mut builder = Request::builder().method(ask.method).uri(uri);
        // The connection adds the host.
        for (name, value) in headers.iter().skip(1) {
            builder = builder.header(*name, *value);
        }
        builder
            .header("authorization", signature)
            .body(ask.body.clone())
            .map_err(|error| S3Error::Protocol(error.to_string()))
    }
}

fn refusal(status: u16, xml: &str) -> S3Error {
    // What others say is shortened, and has no lines of its own.
    let field = |name, most| {
        let text = xml::element(xml, name).map(xml::text).unwrap_or_default();
        let text: String = text.chars().take(most).collect();
        text.replace(char::is_control, " ")
    };
    S3Error::Refused {
        status,
        code: field("Code", 64),
        message: field("Message", 300),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            endpoint: "https://s3.example.com".to_owned(),
            region: "us-east-1".to_owned(),
            bucket: "backups".to_owned(),
            credentials: Credentials {
                access_key: "ID".to_owned(),
                secret_key: "key".to_owned(),
            },
        }
    }

    #[test]
    fn settings_are_checked() {
        let refused = |change: fn(&mut Settings)| {
            let mut settings = settings();
            change(&mut settings);
            Bucket::new(settings, &[], false).err().unwrap().to_string()
        };
        assert!(Bucket::new(settings(), &[], false).is_ok());
        let endpoint = refused(|s| s.endpoint = "ftp://x".to_owned());
        assert!(endpoint.contains("https://"), "{endpoint}");
        let path = refused(|s| s.endpoint += "/bucket");
        assert!(path.contains("without a bucket"), "{path}");
        for bucket in ["ab", "Backups", "a/b/c", "...", ""] {
            let mut settings = settings();
            settings.bucket = bucket.to_owned();
            assert!(Bucket::new(settings, &[], false).is_err(), "{bucket}");
        }
        assert!(refused(|s| s.region.clear()).contains("region"));
        assert!(refused(|s| s.credentials.access_key = "a/b".to_owned()).contains("id of a key"));
        assert!(refused(|s| s.credentials.secret_key = "a\nb".to_owned()).contains("secret"));
    }

    #[test]
    fn refusals_are_read_and_bounded() {
        let long = "x".repeat(1000);
        let xml = format!("<Error><Code>NoSuchBucket</Code><Message>a\nb {long}</Message></Error>");
        let refused = refusal(404, &xml);
        assert_eq!(refused.code(), Some("NoSuchBucket"));
        assert!(!refused.is_missing() && !refused.may_pass());
        let text = refused.to_string();
        assert!(text.len() < 400 && text.contains("a b xxx"), "{text}");
        assert!(refusal(404, "").is_missing() && refusal(503, "<html>").may_pass());
    }
}
