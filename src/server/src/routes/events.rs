//! Events: a WebSocket, or a page of those kept.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use http::HeaderMap;
use http::header::UPGRADE;
use lodge_api::event::{Event, EventParams};
use lodge_api::page::Page;
use lodge_api::privilege::Privilege;
use lodge_manager::Subscription;
use tokio::time::{interval, timeout};

use super::socket::{End, bounded, no_upgrade, still_authorized};
use crate::app::App;
use crate::auth::Authenticated;
use crate::route::{Access, Route, get};
use crate::wire::query::Query;
use crate::wire::reply::{self, Answer};

pub fn routes() -> Vec<Route> {
    let access = Access::Needs(Privilege::SystemRead);
    vec![
        get("/v1/events", access, "event_list", event_list)
            .summary(
                "What happens on the host, as a WebSocket; without an upgrade, what has happened",
            )
            .description(
                "Each text message is one event. `since` replays what is kept, without a hole \
                 between past and present; where there is one, a `gap` says so. Closed with 1001 \
                 when the server stops, 1008 when the session has ended. Browsers send their token \
                 as the subprotocol `bearer.TOKEN` beside `lodge`.",
            )
            .query::<EventParams>()
            .answers_page::<Event>()
            .answers_other(101, "The WebSocket.", None),
    ]
}

async fn event_list(
    State(app): State<App>,
    who: Authenticated,
    Query(params): Query<EventParams>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Answer {
    if !headers.contains_key(UPGRADE) {
        let (items, _) = app.manager().events_since(&params)?;
        return reply::value(&Page {
            items,
            next_page: None,
        });
    }
    let upgrade = upgrade.map_err(|rejection| no_upgrade(&rejection))?;
    let (past, coming) = app.manager().events_since(&params)?;
    Ok(bounded(upgrade).on_upgrade(move |socket| carry(app, who, socket, past, coming)))
}

async fn carry(
    app: App,
    who: Authenticated,
    socket: WebSocket,
    past: Vec<Event>,
    mut coming: Subscription,
) {
    let (mut sink, stream) = socket.split();
    let silence = app.limits().silence;
    let end = tokio::select! {
        end = tell(&app, &who, past, &mut coming, &mut sink) => end,
        end = heard(silence, stream) => end,
        () = app.stop().cancelled() => End::Stopping,
    };
    end.tell(sink).await;
}

/// While the peer does not take a message none is taken from the subscription, which then has a gap.
async fn tell(
    app: &App,
    who: &Authenticated,
    past: Vec<Event>,
    coming: &mut Subscription,
    sink: &mut SplitSink<WebSocket, Message>,
) -> End {
    for event in &past {
        if sink.send(message(event)).await.is_err() {
            return End::Peer;
        }
    }
    drop(past);
    let mut ping = interval(app.limits().ping);
    loop {
        let message = tokio::select! {
            event = coming.next() => match event {
                Some(event) => message(&event),
                None => return End::Stopping,
            },
            _ = ping.tick() => {
                if !still_authorized(app, who) {
                    return End::Unauthorized;
                }
                Message::Ping(Bytes::new())
            }
        };
        if sink.send(message).await.is_err() {
            return End::Peer;
        }
    }
}

fn message(event: &Event) -> Message {
    // Nothing in an event can fail to be written.
    let text = serde_json::to_string(event).unwrap_or_default();
    Message::Text(Utf8Bytes::from(text))
}

/// The peer says nothing of interest, but has to be there.
async fn heard(silence: Duration, mut stream: SplitStream<WebSocket>) -> End {
    loop {
        match timeout(silence, stream.next()).await {
            Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) | Err(_) => return End::Peer,
            Ok(Some(Ok(_))) => {}
        }
    }
}
