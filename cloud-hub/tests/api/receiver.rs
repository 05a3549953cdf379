//! A system that receives webhooks: it answers as it is told to and keeps what it was sent.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::timeout,
};

/// How to answer one request.
#[derive(Debug, Clone)]
pub(crate) enum Reaction {
    Status(u16),
    RetryAfter(u64),
    Redirect(String),
    /// Never.
    Silence,
}

/// What arrived.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) headers: HashMap<String, String>,
    pub(crate) text: String,
    pub(crate) body: Value,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn seq(&self) -> i64 {
        self.body["seq"].as_i64().unwrap()
    }
}

#[derive(Clone)]
struct Script {
    reactions: Arc<Mutex<VecDeque<Reaction>>>,
    arrived: UnboundedSender<Received>,
}

/// The system. Without instructions it answers 200.
pub(crate) struct Receiver {
    pub(crate) url: String,
    reactions: Arc<Mutex<VecDeque<Reaction>>>,
    arriving: UnboundedReceiver<Received>,
}

async fn receive(State(script): State<Script>, headers: HeaderMap, bytes: Bytes) -> Response {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let received = Received {
        headers: headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect(),
        body: serde_json::from_str(&text).unwrap(),
        text,
    };
    let reaction = script.reactions.lock().unwrap().pop_front();
    drop(script.arrived.send(received));
    match reaction.unwrap_or(Reaction::Status(200)) {
        Reaction::Status(status) => (StatusCode::from_u16(status).unwrap(), "said\0so").into_response(),
        Reaction::RetryAfter(seconds) => {
            let headers = [(header::RETRY_AFTER, seconds.to_string())];
            (StatusCode::SERVICE_UNAVAILABLE, headers).into_response()
        }
        Reaction::Redirect(to) => (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, to)]).into_response(),
        Reaction::Silence => std::future::pending().await,
    }
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/in?token=t0k3n", listener.local_addr().unwrap());
        let reactions = Arc::default();
        let (arrived, arriving) = unbounded_channel();
        let script = Script {
            reactions: Arc::clone(&reactions),
            arrived,
        };
        let app = Router::new().fallback(receive).with_state(script);
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            url,
            reactions,
            arriving,
        }
    }

    /// Says how to answer the next requests.
    pub(crate) fn react(&self, reactions: impl IntoIterator<Item = Reaction>) {
        self.reactions.lock().unwrap().extend(reactions);
    }

    /// The next request.
    pub(crate) async fn next(&mut self) -> Received {
        timeout(Duration::from_secs(30), self.arriving.recv())
            .await
            .expect("a webhook arrives in time")
            .unwrap()
    }

    /// Whether nothing has arrived.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.arriving.try_recv().is_err()
    }
}
