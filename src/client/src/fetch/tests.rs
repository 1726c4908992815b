use futures_util::TryStreamExt;
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::*;

/// A server that answers one connection after the other with these bytes, and its address.
async fn server(answers: Vec<&'static str>) -> (Url, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/a file?x=1", listener.local_addr().unwrap());
    let (sender, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for answer in answers {
            let (stream, _) = listener.accept().await.unwrap();
            serve(stream, answer, &sender).await;
        }
    });
    (fetch_url(&url).unwrap(), requests)
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: &str,
    requests: &mpsc::UnboundedSender<String>,
) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
            return;
        }
        request.push(byte[0]);
    }
    let _ = requests.send(String::from_utf8(request).unwrap());
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
}

fn fetcher() -> Arc<Fetcher> {
    Arc::new(Fetcher::with(tls::public(), |_| true))
}

async fn all(fetched: Fetched) -> io::Result<String> {
    let pieces: Vec<Bytes> = fetched.pieces.try_collect().await?;
    Ok(String::from_utf8(pieces.concat()).unwrap())
}

fn failed<T>(result: Result<T, FetchError>) -> String {
    match result {
        Err(FetchError::Failed(problem)) => problem,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was fetched"),
    }
}

/// The beginning of a file of ten bytes, and the end of the connection.
const BEGINNING: &str = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\netag: \"a\"\r\n\r\n0123";

#[tokio::test]
async fn a_file_without_a_length_behind_a_redirection() {
    let (url, mut requests) = server(vec![
        "HTTP/1.1 302 Found\r\nlocation: /there\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    ])
    .await;
    let fetched = fetcher().fetch(&url).await.unwrap();
    assert_eq!(fetched.length, None);
    assert_eq!(all(fetched).await.unwrap(), "abcde");
    let first = requests.recv().await.unwrap();
    assert!(
        first.starts_with("GET /a%20file?x=1 HTTP/1.1\r\n"),
        "{first}"
    );
    assert!(
        first.contains(&format!("host: 127.0.0.1:{}\r\n", url.port().unwrap())),
        "{first}"
    );
    assert!(requests.recv().await.unwrap().starts_with("GET /there "));
}

#[tokio::test]
async fn a_transfer_that_breaks_off_is_taken_up_again() {
    let (url, mut requests) = server(vec![
        BEGINNING,
        "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 4-9/10\r\ncontent-length: 6\r\n\r\n45",
        "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 6-9/10\r\ncontent-length: 4\r\n\r\n6789",
    ])
    .await;
    let fetched = fetcher().fetch(&url).await.unwrap();
    assert_eq!(fetched.length, Some(10));
    assert_eq!(all(fetched).await.unwrap(), "0123456789");
    assert!(!requests.recv().await.unwrap().contains("range"));
    for from in [4, 4, 6] {
        let request = requests.recv().await.unwrap();
        assert!(
            request.contains(&format!("range: bytes={from}-\r\n")),
            "{request}"
        );
        assert!(request.contains("if-range: \"a\"\r\n"), "{request}");
    }
}

#[tokio::test]
async fn another_file_is_not_taken_for_the_rest() {
    let again = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\netag: \"b\"\r\n\r\nabcdefghij";
    let elsewhere = "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 5-9/10\r\ncontent-length: 5\r\n\r\n56789";
    for (answers, words) in [
        (vec![BEGINNING, again], "another file"),
        (
            vec![
                BEGINNING, elsewhere, elsewhere, elsewhere, elsewhere, elsewhere,
            ],
            "206",
        ),
        (
            vec!["HTTP/1.1 200 OK\r\ncontent-length: 10\r\netag: W/\"a\"\r\n\r\n0123"],
            "stopped after 4 bytes",
        ),
    ] {
        let (url, _requests) = server(answers).await;
        let fetched = fetcher().fetch(&url).await.unwrap();
        let problem = all(fetched).await.unwrap_err().to_string();
        assert!(problem.contains(words), "{problem}");
    }
}

#[tokio::test]
async fn answers_that_are_no_file() {
    const LOOP: &str = "HTTP/1.1 301 Moved\r\nlocation: ?\r\ncontent-length: 0\r\n\r\n";
    for (answers, words) in [
        (
            vec!["HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"],
            "answered 404",
        ),
        (
            vec!["HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 0\r\n\r\n"],
            "compressed",
        ),
        (
            vec!["HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n"],
            "to nowhere",
        ),
        (
            vec!["HTTP/1.1 302 Found\r\nlocation: file:///etc/shadow\r\n\r\n"],
            "begin with https",
        ),
        (vec![LOOP; MOST_REDIRECTIONS + 1], "more than 10 times"),
        (vec!["no HTTP at all\r\n\r\n"], "127.0.0.1"),
    ] {
        let (url, _requests) = server(answers).await;
        let problem = failed(fetcher().fetch(&url).await);
        assert!(problem.contains(words), "{problem}");
    }
}

#[tokio::test]
async fn silence_is_waited_for_for_a_while() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = fetch_url(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    let mut impatient = Fetcher::with(tls::public(), |_| true);
    impatient.patience = Duration::from_millis(50);
    let problem = failed(Arc::new(impatient).fetch(&url).await);
    assert!(problem.contains("no answer within"), "{problem}");
    drop(listener);
}

#[tokio::test]
async fn nobody_is_sent_to_the_host_itself() {
    let (url, mut requests) = server(vec![BEGINNING]).await;
    let careful = Arc::new(Fetcher::with(tls::public(), outside));
    let problem = failed(careful.fetch(&url).await);
    assert!(
        problem.contains("127.0.0.1 is not reached from here"),
        "{problem}"
    );
    assert!(requests.try_recv().is_err());
    for inside in [
        "127.8.0.1",
        "0.0.0.0",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "ff02::1",
        "::ffff:127.0.0.1",
    ] {
        assert!(!outside(inside.parse().unwrap()), "{inside}");
    }
    for there in [
        "10.0.2.2",
        "192.168.1.1",
        "203.0.113.9",
        "2001:db8::1",
        "fd00::1",
    ] {
        assert!(outside(there.parse().unwrap()), "{there}");
    }
}

#[tokio::test]
async fn certificates_are_checked() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, _requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(
                    stream,
                    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
                    &sender,
                )
                .await;
            }
        }
    });
    let url = fetch_url(&format!("https://localhost:{port}/")).unwrap();
    let problem = failed(fetcher().fetch(&url).await);
    assert!(problem.contains("TLS failed"), "{problem}");

    let authority = Authority::from_pem(&made.cert.pem()).unwrap();
    let trusting = Arc::new(Fetcher::with(tls::public_and(&[authority]), |_| true));
    assert_eq!(
        all(trusting.fetch(&url).await.unwrap()).await.unwrap(),
        "ok"
    );
    let other_name = fetch_url(&format!("https://127.0.0.1:{port}/")).unwrap();
    let problem = failed(trusting.fetch(&other_name).await);
    assert!(problem.contains("TLS failed"), "{problem}");
}

#[test]
fn urls_that_cannot_be_fetched() {
    for (text, words) in [
        ("", "relative"),
        ("images/debian.qcow2", "relative"),
        ("ftp://example.org/a", "https://"),
        ("file:///etc/shadow", "https://"),
        ("https://me:word@example.org/", "not sent"),
        ("https://", "host"),
    ] {
        let problem = fetch_url(text).unwrap_err().to_string();
        assert!(problem.contains(words), "{text}: {problem}");
    }
    let secure = fetch_url("https://example.org/a/b").unwrap();
    let mut headers = HeaderMap::new();
    headers.insert(LOCATION, HeaderValue::from_static("http://example.org/a/b"));
    let problem = redirected(&secure, &headers).unwrap_err().to_string();
    assert!(problem.contains("from https to http"), "{problem}");
    headers.insert(LOCATION, HeaderValue::from_static("//cdn.example.net/c"));
    assert_eq!(
        redirected(&secure, &headers).unwrap().as_str(),
        "https://cdn.example.net/c"
    );
}
