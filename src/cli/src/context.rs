//! What every command needs: the remotes, the output format, a client.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;

use lodge_api::operation::Operation;
use lodge_client::{Client, ClientError, Exchange, Remotes};

use crate::args::Common;
use crate::output::Format;
use crate::{output, progress};

/// The surroundings of one command.
pub(crate) struct Context {
    pub(crate) format: Format,
    pub(crate) remotes: Remotes,
    pub(crate) path: PathBuf,
    debug: bool,
}

impl Context {
    /// Reads the remotes.
    pub(crate) fn load(common: &Common) -> Result<Self, ClientError> {
        let path = Remotes::path()?;
        Ok(Self {
            format: common.output,
            remotes: Remotes::load(&path)?,
            path,
            debug: common.debug,
        })
    }

    /// A client of the named or the default remote.
    pub(crate) fn client(&self, remote: Option<&str>) -> Result<Client, ClientError> {
        let (_, remote) = self.remotes.find(remote)?;
        Ok(Client::new(
            remote.clone(),
            self.debug.then_some(print_exchange as _),
        ))
    }

    /// Follows an operation to its end and says so, or only shows it when `background`.
    pub(crate) async fn finish(
        &self,
        client: &Client,
        operation: Operation,
        background: bool,
        text: &str,
    ) -> Result<(), ClientError> {
        if background {
            match self.format {
                Format::Table => println!("operation {}", operation.id),
                _ => output::structured(self.format, &operation)?,
            }
            return Ok(());
        }
        let operation = progress::follow(client, operation).await?;
        match self.format {
            Format::Table => println!("{text}"),
            _ => output::structured(self.format, &operation)?,
        }
        Ok(())
    }
}

fn print_exchange(exchange: &Exchange<'_>) {
    let (mark, text) = match exchange {
        Exchange::Sent(text) => ('>', text),
        Exchange::Received(text) => ('<', text),
    };
    for line in text.lines() {
        eprintln!("{mark} {line}");
    }
}

/// Asks for a line.
pub(crate) fn ask(question: &str) -> Result<String, ClientError> {
    eprint!("{question}");
    let mut line = String::new();
    std::io::stderr()
        .flush()
        .and_then(|()| std::io::stdin().lock().read_line(&mut line))
        .map_err(|source| ClientError::File {
            path: "standard input".to_owned(),
            source,
        })?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks for a password without showing it; reads a plain line where there is no terminal.
pub(crate) fn ask_password(question: &str) -> Result<String, ClientError> {
    if !std::io::stdin().is_terminal() {
        return ask(question);
    }
    eprint!("{question}");
    let password = hidden_line();
    eprintln!();
    password.map_err(|source| ClientError::File {
        path: "terminal".to_owned(),
        source,
    })
}

fn hidden_line() -> std::io::Result<String> {
    use crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers, read};
    use crossterm::terminal::{disable_raw_mode, enable_raw_mode};

    std::io::stderr().flush()?;
    enable_raw_mode()?;
    let mut line = String::new();
    let result = loop {
        match read() {
            Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => match key.code {
                KeyCode::Enter => break Ok(line),
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                    break Err(std::io::Error::from(std::io::ErrorKind::Interrupted));
                }
                KeyCode::Char(character) => line.push(character),
                KeyCode::Backspace => {
                    line.pop();
                }
                _ => {}
            },
            Ok(_) => {}
            Err(error) => break Err(error),
        }
    };
    disable_raw_mode()?;
    result
}
