//! Objects that are read piece by piece.

use std::io;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use lodge_client::Exchanged;

use crate::bucket::Ask;
use crate::{Bucket, S3Error};

/// How often a transfer that has broken off is taken up again before another byte comes.
const MOST_RESUMPTIONS: u32 = 5;

/// An object on its way.
pub struct Object {
    /// Its length in bytes.
    pub length: u64,
    /// Its content, or the reason why there is no more of it.
    pub pieces: BoxStream<'static, io::Result<Bytes>>,
}

struct Transfer {
    bucket: Bucket,
    key: String,
    /// What it is known by: another object of that key is not gone on with.
    etag: String,
    length: u64,
    position: u64,
    answer: Exchanged,
    resumptions: u32,
}

impl Bucket {
    /// Begins to read an object, if there is one. The transfer is taken up again where it breaks off.
    ///
    /// # Errors
    /// [`S3Error`].
    pub async fn read(&self, key: &str) -> Result<Option<Object>, S3Error> {
        let answer = match self.ask(Ask::new("GET", key)).await {
            Ok(answer) => answer,
            Err(error) if error.is_missing() => return Ok(None),
            Err(error) => return Err(error),
        };
        let header = |name: &str| {
            let value = answer.parts.headers.get(name);
            value
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        let length = header("content-length").and_then(|length| length.parse().ok());
        let length =
            length.ok_or_else(|| S3Error::Protocol("an object without a length".to_owned()))?;
        let transfer = Transfer {
            bucket: self.clone(),
            key: key.to_owned(),
            etag: header("etag").unwrap_or_default(),
            length,
            position: 0,
            answer,
            resumptions: 0,
        };
        let pieces = stream::try_unfold(transfer, Transfer::next).boxed();
        Ok(Some(Object { length, pieces }))
    }
}

impl Transfer {
    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        while self.position < self.length {
            let problem = match self.answer.piece().await {
                Ok(Some(piece)) => {
                    self.position += piece.len() as u64;
                    self.resumptions = 0;
                    return Ok(Some((piece, self)));
                }
                Ok(None) => "it ended early".to_owned(),
                Err(error) => error.to_string(),
            };
            if self.resumptions >= MOST_RESUMPTIONS || self.etag.is_empty() {
                let position = self.position;
                let text = format!("{} stopped after {position} bytes: {problem}", self.key);
                return Err(io::Error::other(text));
            }
            self.resumptions += 1;
            self.answer = self.rest().await.map_err(io::Error::other)?;
        }
        Ok(None)
    }

    async fn rest(&self) -> Result<Exchanged, S3Error> {
        let range = format!("bytes={}-", self.position);
        let headers = [("if-match", self.etag.as_str()), ("range", &range)];
        let ask = Ask {
            headers: &headers,
            ..Ask::new("GET", &self.key)
        };
        let answer = self.bucket.ask(ask).await?;
        match answer.parts.status.as_u16() {
            206 => Ok(answer),
            status => Err(S3Error::Protocol(format!(
                "the rest was answered with {status}"
            ))),
        }
    }
}
