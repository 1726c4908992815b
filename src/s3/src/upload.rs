//! Objects that are written piece by piece: in parts, of which one is in memory at a time.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use crate::bucket::Ask;
use crate::{Bucket, S3Error, xml};

/// Least and usual size of a part, in bytes; some services want all but the last to be equally long.
const PART: u64 = 16 << 20;

/// Largest part, in bytes: so much memory an upload may take.
const LARGEST_PART: u64 = 256 << 20;

/// Most parts of an object (Amazon S3 User Guide, "Multipart upload limits").
const MOST_PARTS: u64 = 10_000;

/// A begun upload, which is given up when this is dropped before its end.
struct Begun {
    bucket: Bucket,
    key: String,
    id: String,
    ended: bool,
}

impl Drop for Begun {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let (bucket, key) = (self.bucket.clone(), std::mem::take(&mut self.key));
        let id = std::mem::take(&mut self.id);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { given_up(&bucket, &key, &id).await });
        }
    }
}

impl Bucket {
    /// Writes an object of at most `most` bytes; it appears as a whole. An empty piece is the end of it; one that is an error, or none any more,
    /// ends the upload. Returns how many bytes there were.
    ///
    /// # Errors
    /// [`S3Error`]; of what was sent nothing stays.
    pub async fn upload(
        &self,
        key: &str,
        most: u64,
        pieces: &mut mpsc::Receiver<io::Result<Bytes>>,
    ) -> Result<u64, S3Error> {
        let mut parts = Parts {
            pieces,
            size: part_size(most)?,
            begun: BytesMut::new(),
            ended: false,
        };
        let first = parts.next().await?;
        if first.len() < parts.size {
            let length = first.len() as u64;
            self.put(key, first).await?;
            return Ok(length);
        }
        let begun = self.xml("POST", key, &[("uploads", "")], Bytes::new());
        let id = begun.await?;
        let id = xml::element(&id, "UploadId").map(xml::text);
        let id = id.ok_or_else(|| S3Error::Protocol("an upload without an id".to_owned()))?;
        let mut begun = Begun {
            bucket: self.clone(),
            key: key.to_owned(),
            id,
            ended: false,
        };
        let sent = self.send_parts(&begun, first, parts).await;
        if sent.is_err() {
            given_up(self, key, &begun.id).await;
        }
        begun.ended = true;
        sent
    }

    async fn send_parts(
        &self,
        begun: &Begun,
        first: Bytes,
        mut parts: Parts<'_>,
    ) -> Result<u64, S3Error> {
        let (mut sent, mut list, mut number) = (0, String::new(), 0_u64);
        let mut next = first;
        while !next.is_empty() {
            number += 1;
            if number > MOST_PARTS {
                return Err(too_large());
            }
            sent += next.len() as u64;
            let etag = self.send_part(begun, number, next).await?;
            let etag = xml::escaped(&etag);
            list += &format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
            next = parts.next().await?;
        }
        let body = format!(
            "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{list}</CompleteMultipartUpload>"
        );
        let query = [("uploadId", begun.id.as_str())];
        self.xml("POST", &begun.key, &query, body.into()).await?;
        Ok(sent)
    }

    async fn send_part(&self, begun: &Begun, number: u64, part: Bytes) -> Result<String, S3Error> {
        let number = number.to_string();
        let query = [("partNumber", number.as_str()), ("uploadId", &begun.id)];
        let put = Ask {
            query: &query,
            body: part,
            ..Ask::new("PUT", &begun.key)
        };
        let answer = self.ask(put).await?;
        let etag = answer.parts.headers.get("etag");
        let etag = etag.and_then(|etag| etag.to_str().ok()).map(str::to_owned);
        etag.ok_or_else(|| S3Error::Protocol("a part without an ETag".to_owned()))
    }
}

/// Gives an upload up. Parts that could not be removed are removed by the next backup.
async fn given_up(bucket: &Bucket, key: &str, id: &str) {
    if let Err(error) = bucket.abort(key, id).await {
        tracing::warn!(%error, key, "parts of an upload stay in the bucket for now");
    }
}

/// Bytes of each part, so that `most` bytes fit into as many as there may be.
fn part_size(most: u64) -> Result<usize, S3Error> {
    let part = most
        .div_ceil(MOST_PARTS)
        .next_multiple_of(1 << 20)
        .max(PART);
    if part > LARGEST_PART {
        return Err(too_large());
    }
    usize::try_from(part).map_err(|_| too_large())
}

fn too_large() -> S3Error {
    let largest = (LARGEST_PART * MOST_PARTS) >> 30;
    S3Error::Content(io::Error::other(format!(
        "the file is too large for an S3 object: at most {largest} GiB are written"
    )))
}

/// What is uploaded, cut into parts.
struct Parts<'a> {
    pieces: &'a mut mpsc::Receiver<io::Result<Bytes>>,
    /// Bytes of each.
    size: usize,
    /// What has come of the next.
    begun: BytesMut,
    /// No more comes.
    ended: bool,
}

impl Parts<'_> {
    /// The next part: shorter at the end, and empty behind it.
    async fn next(&mut self) -> Result<Bytes, S3Error> {
        while self.begun.len() < self.size {
            if self.ended {
                return Ok(self.begun.split().freeze());
            }
            let piece = self.pieces.recv().await;
            let piece = piece.unwrap_or_else(|| Err(io::Error::other("the content broke off")));
            let piece = piece.map_err(S3Error::Content)?;
            self.ended = piece.is_empty();
            self.begun.extend_from_slice(&piece);
        }
        Ok(self.begun.split_to(self.size).freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_as_large_as_they_have_to_be() {
        let size = |most| part_size(most).map(|size| size as u64);
        assert_eq!(size(0).unwrap(), PART);
        assert_eq!(size(PART * MOST_PARTS).unwrap(), PART);
        let more = PART * MOST_PARTS + 1;
        assert_eq!(size(more).unwrap(), PART + (1 << 20));
        assert_eq!(size(LARGEST_PART * MOST_PARTS).unwrap(), LARGEST_PART);
        assert!(size(u64::MAX / 2).is_err());
    }

    #[tokio::test]
    async fn all_parts_but_the_last_are_equally_long() {
        let (sender, mut pieces) = mpsc::channel(8);
        for length in [3, 9, 1, 0] {
            let piece = Bytes::from(vec![7; length]);
            sender.send(Ok(piece)).await.unwrap();
        }
        drop(sender);
        let mut parts = Parts {
            pieces: &mut pieces,
            size: 4,
            begun: BytesMut::new(),
            ended: false,
        };
        for length in [4, 4, 4, 1, 0] {
            assert_eq!(parts.next().await.unwrap().len(), length);
        }
        let (sender, mut pieces) = mpsc::channel(8);
        sender.send(Ok(Bytes::from_static(b"half"))).await.unwrap();
        drop(sender);
        let mut parts = Parts {
            pieces: &mut pieces,
            size: 8,
            begun: BytesMut::new(),
            ended: false,
        };
        assert!(parts.next().await.is_err(), "it broke off");
    }
}
