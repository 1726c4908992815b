//! Measures the API of the host it runs on, from the moment it answers. For `scripts/bench`.
//!
//! ```text
//! measure-api KERNEL
//! ```
//!
//! Waits for the API, and leaves a line in the kernel's log at its first answer, so that it stands among the lines of who
//! worked for it. Then logs in with the password of the first boot, uploads `KERNEL` (any kernel image) for guests to
//! refer to, and prints the latencies of some requests: a name and a JSON object a line, in microseconds.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use lodge_api::auth::Session;
use lodge_api::local::LocalConsole;
use lodge_client::{BaseUrl, Client, ClientError, Remote, Response, UploadBody, fetch_fingerprint};
use serde_json::{Value, json};
use tokio::net::TcpStream;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const LOCAL: &str = "/run/lodge/local.json";

/// How often the host is asked whether it is there: a compromise between precision and being in its way.
const POLL: Duration = Duration::from_millis(10);

/// Requests before the first that counts.
const WARM_UP: usize = 20;

/// Requests that count: enough for a 99th percentile that is not the maximum.
const REQUESTS: usize = 400;

/// As many guests as a well-filled host has.
const GUESTS: usize = 100;

/// Handshakes cost a hundred times as much.
const CONNECTIONS: usize = 100;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run()),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => {
            println!("DONE");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("FAILED the API could not be measured: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let kernel = std::env::args().nth(1).ok_or("no kernel image")?;
    let anonymous = wait_for_api("https://127.0.0.1:443".parse()?).await?;
    let local = wait_for_local_console().await?;
    let client = log_in(&anonymous, local).await?;
    upload(&client, std::fs::read(kernel)?).await?;

    create(&client, 0).await?;
    let list = sample(REQUESTS, async |_| {
        client.raw(Method::GET, "/v1/vms", None, None).await
    });
    print("list", &list.await?);
    let changes = sample(REQUESTS, async |index| update(&client, index).await);
    print("change", &changes.await?);
    let more = sample(GUESTS, async |index| create(&client, index + 1).await);
    print("create", &more.await?);
    let changes = sample(REQUESTS, async |index| update(&client, index).await);
    print("change-among-many", &changes.await?);
    let connect = sample(CONNECTIONS, async |_| {
        let fresh = Client::new(client.remote().clone(), None);
        fresh.raw(Method::GET, "/v1", None, None).await
    });
    print("connect", &connect.await?);
    Ok(())
}

/// Waits for the first answer. The certificate is taken as it is: it is this machine's own.
async fn wait_for_api(url: BaseUrl) -> Result<Client> {
    // Only when somebody listens is it worth to prepare a handshake, which costs more than all these attempts.
    while TcpStream::connect((url.host(), url.port())).await.is_err() {
        tokio::time::sleep(POLL).await;
    }
    let fingerprint = fetch_fingerprint(&url).await?;
    let client = Client::new(
        Remote {
            url,
            fingerprint,
            user: None,
            token: None,
        },
        None,
    );
    client.get::<Value>("/v1").await?;
    let since_power_on = cycles();
    std::fs::write("/dev/kmsg", format!("bench: api cycles={since_power_on}"))?;
    Ok(client)
}

/// The time stamp counter, which starts at power-on.
#[allow(unsafe_code)]
fn cycles() -> u64 {
    // SAFETY: every x86-64 processor has the counter, and Linux lets programs read it.
    unsafe { std::arch::x86_64::_rdtsc() }
}

async fn wait_for_local_console() -> Result<LocalConsole> {
    loop {
        match std::fs::read(LOCAL) {
            Ok(bytes) => return Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                tokio::time::sleep(POLL).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn log_in(anonymous: &Client, local: LocalConsole) -> Result<Client> {
    let password = local.initial_password.ok_or("no initial password")?;
    let login = json!({ "user": "admin", "password": password });
    let session: Session = anonymous
        .send(Method::POST, "/v1/sessions", &login, None)
        .await?;
    let mut remote = anonymous.remote().clone();
    remote.token = Some(session.token);
    Ok(Client::new(remote, None))
}

async fn upload(client: &Client, kernel: Vec<u8>) -> Result<()> {
    let length = kernel.len() as u64;
    let chunks = Box::pin(futures_util::stream::iter([Ok(Bytes::from(kernel))]));
    let body = UploadBody { chunks, length };
    client
        .upload("/v1/images?name=bench&kind=kernel", body)
        .await?;
    Ok(())
}

async fn create(client: &Client, index: usize) -> std::result::Result<Response, ClientError> {
    let vm = json!({ "name": format!("bench-{index}"), "boot": { "kernel": "bench" } });
    let body = Bytes::from(vm.to_string());
    client.raw(Method::POST, "/v1/vms", Some(body), None).await
}

async fn update(client: &Client, index: usize) -> std::result::Result<Response, ClientError> {
    let patch = json!({ "description": format!("change {index}") });
    let body = Bytes::from(patch.to_string());
    client
        .raw(Method::PATCH, "/v1/vms/bench-0", Some(body), None)
        .await
}

/// Times `request` again and again. It is given its number, warm-up included.
async fn sample<T>(
    count: usize,
    mut request: impl AsyncFnMut(usize) -> std::result::Result<T, ClientError>,
) -> Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(count);
    for index in 0..WARM_UP + count {
        let begin = Instant::now();
        request(index).await?;
        if index >= WARM_UP {
            times.push(begin.elapsed());
        }
    }
    times.sort_unstable();
    Ok(times)
}

fn print(name: &str, times: &[Duration]) {
    let at = |percent: usize| {
        let time = times[(times.len() * percent).div_ceil(100).max(1) - 1];
        (time.as_secs_f64() * 1e7).round() / 10.0
    };
    let result = json!({
        "requests": times.len(),
        "p50_us": at(50),
        "p99_us": at(99),
        "max_us": at(100),
    });
    println!("api {name} {result}");
}
