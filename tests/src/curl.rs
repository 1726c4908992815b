//! `curl`, as anybody would use it on the API.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process::run;

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    /// Status code; 0: no answer.
    pub status: u16,
    /// Header lines as they came.
    pub headers: String,
    /// Body.
    pub body: String,
    /// curl's exit status.
    pub exit: Option<i32>,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body)
            .with_context(|| format!("status {}: not JSON: {}", self.status, self.body))
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// The API at a port of the loopback address.
pub struct Curl {
    port: u16,
    token: Option<String>,
}

impl Curl {
    /// Without credentials.
    pub fn new(port: u16) -> Self {
        Self { port, token: None }
    }

    /// Logged in.
    ///
    /// # Errors
    /// When the password is refused.
    pub fn log_in(port: u16, user: &str, password: &str) -> Result<Self> {
        let body = serde_json::json!({"user": user, "password": password}).to_string();
        let answer = Self::new(port).request("POST", "/v1/sessions", &["-d", &body])?;
        let json = answer.json()?;
        let token = json["token"]
            .as_str()
            .with_context(|| format!("no session: {json}"))?;
        Ok(Self {
            port,
            token: Some(token.to_owned()),
        })
    }

    /// One request with further options of curl.
    ///
    /// # Errors
    /// When curl cannot be started; not when the request fails.
    pub fn request(&self, method: &str, path: &str, options: &[&str]) -> Result<Answer> {
        let mut command = Command::new("curl");
        command
            .args([
                "-sk",
                "-X",
                method,
                "-D",
                "/dev/stderr",
                "--max-time",
                "120",
            ])
            .args(["-w", "\n%{http_code}"]);
        if !options.contains(&"-H") {
            command.args(["-H", "Content-Type: application/json"]);
        }
        if let Some(token) = &self.token {
            command.args(["-H", &format!("Authorization: Bearer {token}")]);
        }
        command
            .args(options)
            .arg(format!("https://127.0.0.1:{}{path}", self.port));
        let outcome = run(&mut command, b"")?;
        let (body, status) = outcome.stdout.rsplit_once('\n').unwrap_or(("", "0"));
        Ok(Answer {
            status: status.parse().unwrap_or(0),
            headers: outcome.stderr,
            body: body.to_owned(),
            exit: outcome.code,
        })
    }

    /// `GET`.
    ///
    /// # Errors
    /// See [`Curl::request`].
    pub fn get(&self, path: &str) -> Result<Answer> {
        self.request("GET", path, &[])
    }

    /// `POST` of JSON text.
    ///
    /// # Errors
    /// See [`Curl::request`].
    pub fn post(&self, path: &str, json: &str) -> Result<Answer> {
        self.request("POST", path, &["-d", json])
    }
}
