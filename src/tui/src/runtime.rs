//! The loop between terminal, host and model.

use std::io;
use std::time::Duration;

use lodge_api::local::LocalConsole;
use lodge_client::{Client, ClientError, Remote};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::guest_console::GuestConsole;
use crate::keys::{self, Input};
use crate::model::{Effect, Message, Model};
use crate::terminal::Screen;
use crate::{effects, fetch, local, view};

/// How often the local manager's file is looked at.
const LOCAL_POLL: Duration = Duration::from_secs(1);

/// Which host.
pub(crate) enum Source {
    /// This machine.
    Local,
    /// A remote.
    Remote {
        /// What the person calls it.
        name: String,
        /// How to reach it.
        remote: Box<Remote>,
    },
}

/// Shows the host until the person quits.
///
/// # Errors
/// When the terminal fails.
pub(crate) fn run(source: Source) -> Result<(), ClientError> {
    let failed = |source: io::Error| ClientError::File {
        path: "terminal".to_owned(),
        source,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let result = runtime.block_on(async { App::new(source).run().await });
    // The keyboard's thread waits for a key and must not hold us.
    runtime.shutdown_background();
    result.map_err(failed)
}

struct App {
    model: Model,
    /// The host being shown: how to reach it, with the credential in use.
    remote: Option<Remote>,
    local: bool,
    messages: mpsc::Sender<Message>,
    inbox: mpsc::Receiver<Message>,
    logins: mpsc::Sender<Remote>,
    logged_in: mpsc::Receiver<Remote>,
    fetcher: Option<JoinHandle<()>>,
    console_input: Option<mpsc::Sender<Vec<u8>>>,
}

impl App {
    fn new(source: Source) -> Self {
        let (messages, inbox) = mpsc::channel(64);
        let (logins, logged_in) = mpsc::channel(1);
        let mut app = Self {
            model: Model::default(),
            remote: None,
            local: matches!(source, Source::Local),
            messages,
            inbox,
            logins,
            logged_in,
            fetcher: None,
            console_input: None,
        };
        if let Source::Remote { name, remote } = source {
            app.model.remote = Some(name);
            app.model.user = remote.user.clone();
            app.connect(*remote);
        }
        app
    }

    async fn run(mut self) -> io::Result<()> {
        let mut screen = Screen::enter()?;
        let mut keyboard = keys::listen();
        let mut poll = tokio::time::interval(LOCAL_POLL);
        loop {
            screen
                .terminal
                .draw(|frame| view::draw(frame, &mut self.model))?;
            tokio::select! {
                input = keyboard.recv() => match input {
                    Some(Input::Key(key)) => {
                        let effect = self.model.press(key);
                        match effect {
                            Some(Effect::Quit) => return Ok(()),
                            Some(Effect::Redraw) => screen.terminal.clear()?,
                            Some(effect) => self.perform(effect),
                            None => {}
                        }
                    }
                    Some(Input::Resize) => {}
                    None => return Ok(()),
                },
                Some(message) = self.inbox.recv() => self.model.receive(message),
                Some(remote) = self.logged_in.recv() => self.connect(remote),
                _ = poll.tick(), if self.local => self.poll_local(),
            }
        }
    }

    fn connect(&mut self, remote: Remote) {
        if let Some(fetcher) = self.fetcher.take() {
            fetcher.abort();
        }
        let client = Client::new(remote.clone(), None);
        self.remote = Some(remote);
        self.fetcher = Some(tokio::spawn(fetch::run(client, self.messages.clone())));
    }

    /// The manager writes its file anew when it restarts, with another token.
    fn poll_local(&mut self) {
        let now = local::read();
        let token = |local: &Option<LocalConsole>| local.as_ref().map(|local| local.token.clone());
        if token(&now) != token(&self.model.local)
            && self.model.user.is_none()
            && let Some(remote) = now.as_ref().and_then(local::remote)
        {
            self.connect(remote);
        }
        self.model.receive(Message::Local(now.map(Box::new)));
    }

    fn client(&self) -> Option<Client> {
        self.remote.clone().map(|remote| Client::new(remote, None))
    }

    fn perform(&mut self, effect: Effect) {
        let Some(client) = self.client() else {
            self.model.notice = Some("The host is not reached yet".to_owned());
            return;
        };
        let messages = self.messages.clone();
        match effect {
            Effect::Quit | Effect::Redraw => {}
            Effect::Vm { name, action } => {
                self.model.notice = Some(format!("{name}: {}…", action.as_str()));
                tokio::spawn(effects::vm_action(client, name, action, messages));
            }
            Effect::System(action) => {
                tokio::spawn(effects::system_action(client, action, messages));
            }
            Effect::ListDisks => {
                tokio::spawn(effects::list_disks(client, messages));
            }
            Effect::Install(request) => {
                self.model.notice = Some(format!("Installing on {}…", request.disk));
                tokio::spawn(effects::install(client, request, messages));
            }
            Effect::LogIn { user, password } => {
                self.log_in(client.remote().clone(), user, password);
            }
            Effect::OpenConsole(name) => {
                let (sender, input) = mpsc::channel(64);
                self.console_input = Some(sender);
                self.model.console = Some(GuestConsole::new(name.clone(), 24, 80));
                tokio::spawn(effects::console(client, name, input, messages));
            }
            Effect::ConsoleInput(bytes) => {
                // A full channel means a stuck connection: keys are lost, the screen stays alive.
                let _ = self
                    .console_input
                    .as_ref()
                    .map(|sender| sender.try_send(bytes));
            }
            Effect::CloseConsole => self.console_input = None,
        }
    }

    fn log_in(&self, remote: Remote, user: String, password: String) {
        let (messages, logins) = (self.messages.clone(), self.logins.clone());
        tokio::spawn(async move {
            let message = match effects::log_in(remote, user.clone(), password).await {
                Ok(remote) => {
                    let _ = logins.send(remote).await;
                    Message::LoggedIn(user)
                }
                Err(error) => Message::LogInFailed(error.to_string()),
            };
            let _ = messages.send(message).await;
        });
    }
}
