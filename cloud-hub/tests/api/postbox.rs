//! An SMTP server that keeps what it is given, and refuses what a test tells it to.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use cloud_hub::{config::Config, kernel::secret::Secret};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    time::timeout,
};

/// A letter as it arrived.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) to: String,
    pub(crate) subject: String,
    pub(crate) text: String,
}

impl Arrived {
    /// The one-time token: the word that names its tenant.
    pub(crate) fn token(&self) -> String {
        let words = self.text.split(|c: char| c.is_whitespace() || c == '=');
        let mut tokens = words.filter(|word| word.starts_with("akron.") && word.len() > 50);
        tokens.next().unwrap().to_owned()
    }
}

/// The server.
#[derive(Debug)]
pub(crate) struct Postbox {
    address: SocketAddr,
    arrived: mpsc::UnboundedReceiver<Arrived>,
    refusals: Arc<Mutex<VecDeque<&'static str>>>,
    refused: mpsc::UnboundedReceiver<()>,
    _open: oneshot::Sender<()>,
}

impl Postbox {
    pub(crate) async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (letters, arrived) = mpsc::unbounded_channel();
        let (told, refused) = mpsc::unbounded_channel();
        let (open, mut closed) = oneshot::channel();
        let refusals = Arc::new(Mutex::new(VecDeque::new()));
        let answers = refusals.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap(),
                    _ = &mut closed => return,
                };
                tokio::spawn(serve(stream, letters.clone(), told.clone(), answers.clone()));
            }
        });
        Self {
            address,
            arrived,
            refusals,
            refused,
            _open: open,
        }
    }

    /// Lets a hub send its mail here.
    pub(crate) fn configure(&self, config: &mut Config) {
        config.mail.smtp_url = Some(Secret::new(format!("smtp://{}", self.address)));
        config.mail.from = Some("FoodFlow OS <hub@foodflow.example>".to_owned());
        config.http.public_url = Some("https://foodflow.example".to_owned());
        config.auth.attempts.mails_per_source_min = 1_000;
        config.auth.attempts.tokens_per_source_min = 1_000;
    }

    /// What the next recipients are answered.
    pub(crate) fn refuse(&self, answer: &'static str) {
        self.refusals.lock().unwrap().push_back(answer);
    }

    /// Waits until a recipient was refused.
    pub(crate) async fn refused(&mut self) {
        let refused = timeout(Duration::from_secs(60), self.refused.recv());
        refused.await.expect("a letter is tried").unwrap();
    }

    /// The next letter.
    pub(crate) async fn next(&mut self) -> Arrived {
        let letter = timeout(Duration::from_secs(60), self.arrived.recv());
        letter.await.expect("a letter arrives").unwrap()
    }
}

async fn serve(
    stream: TcpStream,
    letters: mpsc::UnboundedSender<Arrived>,
    told: mpsc::UnboundedSender<()>,
    refusals: Arc<Mutex<VecDeque<&'static str>>>,
) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let mut to = String::new();
    write.write_all(b"220 postbox ESMTP\r\n").await.unwrap();
    while let Ok(Some(line)) = lines.next_line().await {
        let verb = line
            .split([' ', ':'])
            .next()
            .unwrap_or_default()
            .to_ascii_uppercase();
        let answer = match verb.as_str() {
            "EHLO" => "250-postbox\r\n250 8BITMIME",
            "MAIL" | "RSET" | "NOOP" => "250 fine",
            "RCPT" => {
                to = line.split(['<', '>']).nth(1).unwrap().to_owned();
                let refusal = refusals.lock().unwrap().pop_front();
                if refusal.is_some() {
                    told.send(()).unwrap();
                }
                refusal.unwrap_or("250 fine")
            }
            "DATA" => {
                write.write_all(b"354 go on\r\n").await.unwrap();
                let mut message = String::new();
                while let Some(line) = lines.next_line().await.unwrap() {
                    if line == "." {
                        break;
                    }
                    message += line.strip_prefix('.').unwrap_or(&line);
                    message += "\n";
                }
                // A test that has seen enough is gone.
                drop(letters.send(read_message(&to, &message)));
                "250 taken"
            }
            "QUIT" => "221 bye",
            _ => "502 what",
        };
        if write.write_all(format!("{answer}\r\n").as_bytes()).await.is_err() {
            return;
        }
    }
}

fn read_message(to: &str, message: &str) -> Arrived {
    let (head, body) = message.split_once("\n\n").unwrap();
    let header = |name: &str| {
        head.lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let text = match header("Content-Transfer-Encoding:").as_str() {
        "quoted-printable" => body.replace("=\n", "").replace("=3D", "="),
        "7bit" => body.to_owned(),
        other => panic!("unexpected encoding {other}"),
    };
    Arrived {
        to: to.to_owned(),
        subject: header("Subject:"),
        text,
    }
}
