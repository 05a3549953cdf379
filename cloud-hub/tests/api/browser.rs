//! A browser for sign-in tests: keeps each origin's cookies, follows redirects one at a time, fills in the forms of
//! the certified provider; and the providers themselves.

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use cloud_hub::config::Config;
use reqwest::{
    Client, Response, Url,
    header::{COOKIE, LOCATION, SET_COOKIE},
    redirect::Policy,
};
use serde_json::{Value, json};

use crate::{client::http_client, support::TestHub};

/// Lets the hub talk to providers on this host.
pub(crate) fn with_local_providers(config: &mut Config) {
    config.oidc.allow_http = true;
}

pub(crate) struct Browser {
    http: Client,
    /// By port: every origin of a test is on this host.
    cookies: HashMap<u16, BTreeMap<String, String>>,
}

impl Browser {
    pub(crate) fn new() -> Self {
        drop(http_client());
        Self {
            http: Client::builder().redirect(Policy::none()).build().unwrap(),
            cookies: HashMap::new(),
        }
    }

    pub(crate) async fn get(&mut self, url: &str) -> Response {
        self.go(url, None).await
    }

    async fn go(&mut self, url: &str, form: Option<&str>) -> Response {
        let port = Url::parse(url).unwrap().port().unwrap();
        let kept = self.cookies.entry(port).or_default();
        let line: Vec<String> = kept
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let mut request = match form {
            Some(form) => self
                .http
                .post(url)
                .header("content-type", "application/x-www-form-urlencoded")
                .body(form.to_owned()),
            None => self.http.get(url),
        };
        if !line.is_empty() {
            request = request.header(COOKIE, line.join("; "));
        }
        let response = request.send().await.unwrap();
        for line in response.headers().get_all(SET_COOKIE) {
            let pair = line.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            kept.insert(name.to_owned(), value.to_owned());
            kept.retain(|_, value| !value.is_empty());
        }
        response
    }

    pub(crate) fn cookie(&self, hub: &TestHub, name: &str) -> Option<String> {
        self.cookies.get(&hub.hub.http.port())?.get(name).cloned()
    }

    /// From the hub's `start` until the provider sends back: the callback's address, not yet called.
    pub(crate) async fn sign_in(&mut self, hub: &TestHub, start: &str, login: &str) -> String {
        self.sign_in_at(hub, &hub.url(start), login).await
    }

    pub(crate) async fn sign_in_at(&mut self, hub: &TestHub, url: &str, login: &str) -> String {
        let callback = hub.url("/api/v1/auth/oidc/callback");
        let mut at = url.to_owned();
        let mut form: Option<String> = None;
        for _ in 0..20 {
            let response = self.go(&at, form.take().as_deref()).await;
            if let Some(next) = location(&response) {
                at = Url::parse(&at).unwrap().join(&next).unwrap().to_string();
                if at.starts_with(&callback) {
                    return at;
                }
                continue;
            }
            assert_eq!(response.status(), 200, "{at}");
            let page = response.text().await.unwrap();
            form = Some(if page.contains("value=\"login\"") {
                format!("prompt=login&login={login}&password=x")
            } else {
                assert!(page.contains("value=\"consent\""), "{page}");
                "prompt=consent".to_owned()
            });
        }
        panic!("the provider leads nowhere");
    }
}

/// Where an answer leads.
pub(crate) fn location(response: &Response) -> Option<String> {
    let to = response.headers().get(LOCATION)?;
    response
        .status()
        .is_redirection()
        .then(|| to.to_str().unwrap().to_owned())
}

/// The certified provider, a process; it ends with its standard input.
pub(crate) struct Provider {
    pub(crate) issuer: String,
    child: Child,
}

impl Drop for Provider {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn installed() -> PathBuf {
    let given = std::env::var_os("FOODFLOW_PEER_OIDC").map(PathBuf::from);
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache =
        cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"));
    let installed = given.unwrap_or_else(|| cache.join("foodflow/peer-oidc"));
    assert!(
        installed.join("node_modules/oidc-provider").exists(),
        "{}: no OpenID provider; run scripts/setup.sh test or set FOODFLOW_PEER_OIDC",
        installed.display()
    );
    installed
}

impl Provider {
    /// One that knows these people and sends them back to this hub.
    pub(crate) fn start(hub: &TestHub, people: &Value) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/oidc/provider.mjs");
        let mut child = Command::new("node")
            .arg(script)
            .arg(hub.url("/api/v1/auth/oidc/callback"))
            .arg(people.to_string())
            .env("FOODFLOW_PEER_OIDC", installed())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("node starts; is it in PATH? scripts/node-path.sh prints a folder that has it");
        let mut issuer = String::new();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        said.read_line(&mut issuer).unwrap();
        let issuer = issuer.trim().to_owned();
        assert!(issuer.starts_with("http://"), "the provider did not start");
        Self { issuer, child }
    }

    /// What an administrator enters for it.
    pub(crate) fn entry(&self, name: &str) -> Value {
        json!({
            "name": name, "display_name": "Plant account", "issuer": self.issuer, "client_id": "foodflow",
            "client_secret": "secret of a test client", "scopes": ["email", "profile", "groups"],
            "email_domains": ["akron.example"]
        })
    }
}
